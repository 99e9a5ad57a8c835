"""A server that speaks Bedrock's and OpenAI's protocols without a model: for load tests, chaos runs, compose and CI."""
