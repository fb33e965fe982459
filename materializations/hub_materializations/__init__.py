"""The materializations that ship with hub, one file a connector."""
