"""What `millrace simulate` is made of: its scenario, its runs, its search for capacity and its output."""
