"""From a configuration to frozen packs: grid expansion, sharing, packing, cost."""
