"""What a command does, one file a verb."""
