"""The engine: desired state, VIF allocation, resolution and planning. No sockets, no clock, no asyncio."""
