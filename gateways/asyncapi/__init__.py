"""The log as a contract: an AsyncAPI 3.0 document of one configuration, generated from the code."""
