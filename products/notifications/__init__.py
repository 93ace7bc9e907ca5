"""The notifications product: the provider adapters, and the route that receives provider callbacks."""
