"""OpenAI's chat and embeddings on one side, Bedrock's Converse and InvokeModel on the other: pure functions between."""
