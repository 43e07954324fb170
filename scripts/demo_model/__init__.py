"""The parts of `train_demo_model.py`: corpus, tokenizer, network, optimizer, training, and model card."""
