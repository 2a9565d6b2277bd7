"""An ASGI app as people write them: Django with django-eventstream, whose events last in a database."""

import os
import sys

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="of a test",
    ALLOWED_HOSTS=["localhost"],
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django_eventstream"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DATABASE"]}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    EVENTSTREAM_STORAGE_CLASS="django_eventstream.storage.DjangoModelStorage",
    ROOT_URLCONF=__name__,
)
django.setup()

import django_eventstream
import uvicorn
from django.core.asgi import get_asgi_application
from django.core.management import call_command
from django.http import HttpResponse
from django.urls import include, path


def publish(request):
    django_eventstream.send_event("room", "message", {"n": int(request.GET["n"])})
    return HttpResponse("published")


urlpatterns = [
    path("", lambda request: HttpResponse("<!doctype html><title>app</title>")),
    path("publish", publish),
    path("events/", include(django_eventstream.urls), {"channels": ["room"]}),
]

if __name__ == "__main__":
    call_command("migrate", verbosity=0)
    uvicorn.run(get_asgi_application(), host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning")
