"""When what runs and what may be committed; pure asyncio, knows neither Faust nor Kafka nor HTTP."""
