"""What receipts need that ask real engines."""
