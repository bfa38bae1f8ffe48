"""What may be asked: the schema, composition by Hydra, the spelling of overrides, scale factors."""
