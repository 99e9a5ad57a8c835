"""The usual control: FastAPI and aiokafka, written as their documentation shows it.

Reads from the environment: BENCH_KAFKA, BENCH_TOPIC, BENCH_SECRET (base64).
"""

import base64
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaProducer
from fastapi import FastAPI, HTTPException, Request

from bench.gateway.controls.signature import is_authentic

_SECRET = base64.b64decode(os.environ["BENCH_SECRET"])
_TOPIC = os.environ["BENCH_TOPIC"]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Hold one producer for the life of the application."""
    producer = AIOKafkaProducer(
        bootstrap_servers=os.environ["BENCH_KAFKA"], acks="all", enable_idempotence=True, compression_type="lz4"
    )
    await producer.start()
    app.state.producer = producer
    yield
    await producer.stop()


app = FastAPI(lifespan=lifespan)


@app.post("/webhooks/bench", status_code=202)
async def webhook(request: Request) -> dict[str, str]:
    """Verify, produce, answer."""
    body = await request.body()
    event_id = request.headers["webhook-id"].encode()
    stamp, signature = request.headers["webhook-timestamp"].encode(), request.headers["webhook-signature"].encode()
    if not is_authentic(_SECRET, event_id, stamp, signature, body):
        raise HTTPException(status_code=401)
    await request.app.state.producer.send_and_wait(_TOPIC, body, key=event_id)
    return {"id": event_id.decode(), "status": "accepted"}
