"""A handler of a table's stream: items come in DynamoDB's own JSON, as they were before the change and after it."""

import journal


def handler(event, context):
    for record in event["Records"]:
        change = record["dynamodb"]
        before, after = (change.get(image, {}) for image in ("OldImage", "NewImage"))
        changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
        print(record["eventName"], change["Keys"]["id"]["S"], *changed)
        journal.write(event, context, record, "done")
