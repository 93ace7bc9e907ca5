"""Fakes of message providers: real HTTP servers that refuse what the provider's documents do not allow, and call back."""
