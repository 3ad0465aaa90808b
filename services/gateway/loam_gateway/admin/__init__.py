"""Routes of the admin listener: the operator's token opens it."""

from fastapi import APIRouter

ROUTERS: tuple[APIRouter, ...] = ()
