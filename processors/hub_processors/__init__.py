"""The processors that ship with hub, one file a connector."""
