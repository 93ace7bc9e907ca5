"""Users: the people of a workspace that products refer to by id."""

from pydantic import EmailStr
from sqlalchemy.orm import Mapped

from spine.kernel.crud import crud_router
from spine.kernel.errors import Conflict
from spine.kernel.events import EventType
from spine.kernel.resource import Body, Metadata, Name, Resource, ResourceOut, TenantRow


class UserRow(TenantRow):
    __tablename__ = "users"
    name: Mapped[str]
    email: Mapped[str]

    constraint_errors = {  # read-only
        "users_workspace_id_email_key": lambda: Conflict(
            "a user with this email exists", code="user_exists", param="email"
        ),
    }


class UserCreate(Body):
    name: Name
    email: EmailStr
    metadata: Metadata = {}


class UserOut(ResourceOut):
    object: str = "user"
    name: str
    email: str


USER = Resource(
    noun="user",
    row=UserRow,
    create=UserCreate,
    update=None,
    out=UserOut,
    scope="users",
    events=(EventType("user.created", UserOut, "A user was added to the workspace."),),
)

router = crud_router(USER, "", "create", "get", "list")
