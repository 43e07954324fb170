"""What does one iteration of a replica compute? One policy per file."""
