"""Features to a prediction: heads and what they say."""
