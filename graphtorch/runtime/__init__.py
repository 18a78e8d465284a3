"""Devices other than the host: their memory, streams and events, and how bytes get there and back."""
