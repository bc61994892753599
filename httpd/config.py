"""What config/httpd.yaml may say."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PostgresConfig(_Strict):
    connections: Annotated[int, Field(ge=1, le=32)] = 4
    statement_timeout_s: Annotated[float, Field(gt=0, le=60)] = 5


class RedisConfig(_Strict):
    connections: Annotated[int, Field(ge=1, le=32)] = 2
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 1


class Config(_Strict):
    """The API's settings; the file comments each."""

    host: str = "127.0.0.1"
    max_quote_age_s: Annotated[float, Field(gt=0)] = 60
    idle_timeout_s: Annotated[float, Field(gt=0, le=3600)] = 15
    max_body_bytes: Annotated[int, Field(ge=0)] = 1_048_576
    postgres: PostgresConfig = PostgresConfig()
    redis: RedisConfig = RedisConfig()

    @field_validator("host")
    @classmethod
    def _loopback(cls, host: str) -> str:
        if host not in LOOPBACK:
            raise ValueError("must be a loopback address: another bind needs access tokens, which do not exist yet")
        return host
