"""Each gate, driven for real, and what people and programs are told about it."""
