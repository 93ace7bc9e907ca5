"""Provider adapters: one module per kind of provider. Adapters do not import each other."""
