"""Routes of the internal listener: caller tokens and pipelines' own keys open it, from within the cluster."""

from fastapi import APIRouter

ROUTERS: tuple[APIRouter, ...] = ()
