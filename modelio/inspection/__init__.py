"""What a model really needs, said to people and to programs."""
