"""Where AWS is for this process, by AWS's own conventions, and clients for it."""

from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings


class AwsSettings(BaseSettings):
    """Region and endpoints; credentials come from botocore's own chain. An endpoint of None is AWS itself."""

    region: str = Field(default="us-east-1", validation_alias=AliasChoices("AWS_REGION", "AWS_DEFAULT_REGION"))
    endpoint_url_s3: str | None = Field(
        default=None, validation_alias=AliasChoices("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    )
    endpoint_url_iam: str | None = Field(
        default=None, validation_alias=AliasChoices("AWS_ENDPOINT_URL_IAM", "AWS_ENDPOINT_URL")
    )
    endpoint_url_sqs: str | None = Field(
        default=None, validation_alias=AliasChoices("AWS_ENDPOINT_URL_SQS", "AWS_ENDPOINT_URL")
    )


def client(service: str, settings: AwsSettings) -> Any:
    """An aiobotocore client of `service` ("s3", "iam" or "sqs"), as an asynchronous context manager."""
    return get_session().create_client(
        service,
        region_name=settings.region,
        endpoint_url=getattr(settings, f"endpoint_url_{service}"),
        config=AioConfig(connect_timeout=5, read_timeout=60, retries={"mode": "standard", "max_attempts": 3}),
    )
