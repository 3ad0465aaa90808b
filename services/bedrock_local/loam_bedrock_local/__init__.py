"""A stand-in for Amazon Bedrock that speaks its wire protocol, for laptops and tests."""
