"""What can go wrong with physical backups and recovery.

UsageError
+-- TargetOutside           no recovery can come to that moment
+-- UnknownRestorePoint
+-- RestorePointTaken
+-- NoPhysicalBackup
+-- ReplicationForbidden    the server does not let this user take its files or its WAL
+-- NotPrimary
`-- WalKeyMissing
WorkError
+-- BaseBackupFailed
+-- BaseBackupRunning
+-- WalConflict             a different file of that name is archived already
+-- WalDamaged              an archived file is not what was put there
+-- ReceiveFailed
+-- RecoveryFailed
+-- WalNotLookedThrough     so nobody knows whether it creates a tablespace
+-- TablespaceCreated       a recovery would touch its place, where the live server may be
`-- NotLookedAt             the recovered server could not be examined
"""

from __future__ import annotations

from dbplatform.errors import UsageError, WorkError


class TargetOutside(UsageError):
    """{database} cannot be restored to {target}: {reason}; {windows}."""


class UnknownRestorePoint(UsageError):
    """No restore point {name} of {database} is known."""


class RestorePointTaken(UsageError):
    """The restore point {name} of this server exists since {made_at}."""


class NoPhysicalBackup(UsageError):
    """There is no undamaged physical backup of the server of {database}."""


class ReplicationForbidden(UsageError):
    """{server} gives no physical copy of itself: {reason}."""


class NotPrimary(UsageError):
    """{server} is a standby: {what} is done on its primary."""


class BaseBackupFailed(WorkError):
    """The base backup of {server} failed: {reason}."""


class BaseBackupRunning(WorkError):
    """A base backup of {server} is being taken now."""


class WalConflict(WorkError):
    """The WAL file {name} is archived already with other content: two servers share the system identifier {system}."""


class WalDamaged(WorkError):
    """The archived WAL file {name} is damaged: {reason}."""


class WalKeyMissing(UsageError):
    """The archived WAL file {name} is encrypted, and no key that opens it is given."""


class ReceiveFailed(WorkError):
    """The WAL of {server} is not received any more: {reason}."""


class RecoveryFailed(WorkError):
    """The recovery to {target} failed: {reason}."""


class WalNotLookedThrough(WorkError):
    """The WAL from {lsn} on could not be looked through for new tablespaces: {reason}."""


class TablespaceCreated(WorkError):
    """The WAL at {lsn} creates the tablespace in {location}, which a recovery must not touch."""


class NotLookedAt(WorkError):
    """The recovered {database} could not be examined: {reason}."""
