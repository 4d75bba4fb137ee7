"""Push: what happens is sent to who watches, by WebSocket, the moment it is known.

One ``Feed`` for each database with live tables holds its one listening session and is the only one that reads there;
``Announcements`` listens to the ledger; ``Progress`` looks at work while it runs. Each gives a message to the ``Hub``,
which hands its text to every ``Watcher`` of that database. However many watch, a database sees the same few statements.
"""
