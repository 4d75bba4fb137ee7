"""What can go wrong with backups.

UsageError
+-- UnknownBackup
+-- NotRestorable           a backup that is not complete
+-- NotWhole                a backup of rows or tables alone
+-- DatabaseExists          a restore would go over a database
+-- ReplaceMismatch
+-- ServerTooOld
+-- ServerLacks             extensions or roles that the backup needs
+-- KeyMissing              the backup is encrypted, and no key is given
+-- KeyUnreadable           what is given is no key
+-- WrongKey
+-- TableNotInBackup
+-- TableExists             a restored table would go over one
+-- NoRoles
`-- OutputExists
WorkError
+-- NoFittingProgram
+-- NoSameProgram
+-- NoRoom
+-- BackupFailed
+-- BackupDamaged           the files are not what was written
+-- BackupUnreadable        the files could not be read, so nothing is known of them
+-- NotUnpacked             there is no room to read an encrypted one, or one in a bucket
+-- BackupInUse
+-- SchemaNotDumped
`-- RestoreFailed
"""

from __future__ import annotations

from dbplatform.errors import UsageError, WorkError


class UnknownBackup(UsageError):
    """The database {database} has no backup {id}."""


class NotRestorable(UsageError):
    """The backup {id} is {status}, not complete."""


class NotWhole(UsageError):
    """The backup {id} holds {scope} alone: no database can be made from it."""


class DatabaseExists(UsageError):
    """The database {name} exists on {server}."""


class ReplaceMismatch(UsageError):
    """The restore goes into {name}, but {replace} was named as the database to replace."""


class ServerTooOld(UsageError):
    """The backup {id} comes from PostgreSQL {needed}; {server} runs {actual}, which is older."""


class ServerLacks(UsageError):
    """The backup {id} needs {what}, which {server} does not have."""


class KeyMissing(UsageError):
    """The backup {id} is encrypted, and no key is given."""


class KeyUnreadable(UsageError):
    """The age key in {source} cannot be used: {reason}."""


class WrongKey(UsageError):
    """The backup {id} is encrypted to {recipients}, and none of the {count} keys in {source} opens it."""


class TableNotInBackup(UsageError):
    """The backup {id} holds no table {table}."""


class TableExists(UsageError):
    """{what} exists in the database {database}."""


class NoRoles(UsageError):
    """The backup {id} holds no roles: {reason}."""


class OutputExists(UsageError):
    """The file {file} exists."""


class NoFittingProgram(WorkError):
    """No {program} of PostgreSQL {at_least} or newer was found; there is {found}."""


class NoSameProgram(WorkError):
    """No {program} of PostgreSQL {major} was found; there is {found}."""


class NoRoom(WorkError):
    """{folder} has {free} free; {work} may need {needed}."""


class BackupFailed(WorkError):
    """The backup of {database} failed: {reason}."""


class BackupDamaged(WorkError):
    """The backup {id} is damaged: {problems}."""


class BackupUnreadable(WorkError):
    """The file {path} of the backup {id} cannot be read: {reason}."""


class NotUnpacked(WorkError):
    """The files of the backup {id} cannot be unpacked into {folder}: {reason}."""


class BackupInUse(WorkError):
    """The backup {id} is being pruned."""


class CloneFailed(WorkError):
    """The schema of {database} could not be copied into a scratch database: {reason}."""


class SchemaNotDumped(WorkError):
    """The schema of {database} could not be read: {reason}."""


class RestoreFailed(WorkError):
    """The restore of {id} into {name} failed: {reason}."""
