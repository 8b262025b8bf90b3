"""The route table: each operation of Lambda that is served, and by what. Methods, paths and shapes are the model's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from bridge.api import Answer, Call, Host, event_invoke, functions, invoke, mappings, provisioned, tags, versions

Handler = Callable[[Host, Call], Awaitable[Answer]]

ROUTES: dict[str, Handler] = {
    "Invoke": invoke.invoke,
    "InvokeAsync": invoke.invoke_async,
    "ListFunctions": functions.list_all,
    "GetFunction": functions.get,
    "GetFunctionConfiguration": functions.get_configuration,
    "PutFunctionConcurrency": functions.put_concurrency,
    "GetFunctionConcurrency": functions.get_concurrency,
    "DeleteFunctionConcurrency": functions.delete_concurrency,
    "ListVersionsByFunction": versions.list_all,
    "ListAliases": versions.list_aliases,
    "GetAlias": versions.get_alias,
    "PutProvisionedConcurrencyConfig": provisioned.put,
    "GetProvisionedConcurrencyConfig": provisioned.get,
    "ListProvisionedConcurrencyConfigs": provisioned.list_all,
    "DeleteProvisionedConcurrencyConfig": provisioned.delete,
    "CreateEventSourceMapping": mappings.create,
    "GetEventSourceMapping": mappings.get,
    "ListEventSourceMappings": mappings.list_all,
    "UpdateEventSourceMapping": mappings.update,
    "DeleteEventSourceMapping": mappings.delete,
    "PutFunctionEventInvokeConfig": event_invoke.put,
    "UpdateFunctionEventInvokeConfig": event_invoke.update,
    "GetFunctionEventInvokeConfig": event_invoke.get,
    "DeleteFunctionEventInvokeConfig": event_invoke.delete,
    "ListFunctionEventInvokeConfigs": event_invoke.list_all,
    "ListTags": tags.list_all,
    "TagResource": tags.tag,
    "UntagResource": tags.untag,
}
