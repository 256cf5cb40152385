"""Tellwire in front of Django: ``uvicorn django_app:app``."""

import secrets

from django.conf import settings
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

from tellwire import ConnectRequest, Grants, Identity, Tellwire, Unauthorized

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"], ROOT_URLCONF=__name__, SECRET_KEY=secrets.token_hex(),
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
)  # fmt: skip
tellwire = Tellwire()
app = tellwire.in_front_of(get_asgi_application(), "/realtime")


def log_in(request: HttpRequest) -> HttpResponse:
    request.session["user"] = request.GET["user"]  # a real one asks for a password
    return HttpResponse()


def post_news(request: HttpRequest) -> HttpResponse:
    published = tellwire.publish_sync("news", {"from": request.session["user"], "text": request.GET["text"]})
    return HttpResponse(str(published.position))


@tellwire.on_connect
def on_connect(request: ConnectRequest) -> Identity:
    if (user := SessionStore(request.cookies.get("sessionid")).get("user")) is None:
        raise Unauthorized("log in first")
    return Identity(user=user, grants=Grants.of({"subscribe": ["news"]}))


urlpatterns = [path("login", log_in), path("news", post_news)]
