"""The captures that ship with hub, one file a connector."""
