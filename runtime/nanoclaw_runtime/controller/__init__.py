"""The asyncio shells around `domain`: they carry out decisions and own no rules."""
