"""The engine: runs Hugging Face checkpoints with torch and serves them over OpenAI's HTTP interface.

The shell around `replica.Replica`; needs the `engine` extra. Nothing is imported here, so that the
settings can be read without torch.
"""
