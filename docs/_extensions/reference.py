"""What autodoc does not do by itself for this package's reference."""

import importlib
import inspect

from sphinx.domains.python import PyObject
from sphinx.util import logging
from sphinx.util.inspect import stringify_signature
from sphinx.util.nodes import make_refnode

for field in PyObject.doc_field_types:
    if field.name == "variable":
        field.label = "Attributes"  # as the docstrings have it


def link_short_names(app, env, node, contnode):
    """`top_n` alone is a link to wherever that name is documented, if it is in one place."""
    if node.get("refdomain") != "py":
        return None
    domain, target = env.get_domain("py"), node["reftarget"].removesuffix("()")
    found = domain.find_obj(env, node.get("py:module"), node.get("py:class"), target, None, 1)
    places = {(entry.docname, entry.node_id) for _, entry in found}
    if len(places) != 1:
        return None
    ((docname, node_id),) = places
    return make_refnode(app.builder, node["refdoc"], docname, node_id, contnode, target)


def signature_of_init(app, what, name, obj, options, signature, return_annotation):
    """Keras's classes have a ``__new__`` that takes anything, which autodoc would show."""
    if what != "class" or signature != "(*args, **kwargs)":
        return None
    parameters = list(inspect.signature(obj.__init__).parameters.values())[1:]
    return stringify_signature(inspect.Signature(parameters), show_annotation=False), return_annotation


def skip_aliases(app, what, name, obj, skip, options):
    """A named tuple's fields are described where the class is."""
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field number") else None


def check_names(app, env):
    """Every name of a module's ``__all__`` is documented, but for DeepCTR's; a constant perhaps where it is defined."""
    domain = env.get_domain("py")
    for module in domain.modules:
        home = importlib.import_module(module)
        for name in getattr(home, "__all__", ()):
            own = not getattr(getattr(home, name), "__module__", "").startswith("deepctr.")
            if own and not any(each.split(".")[-1] == name for each in domain.objects):
                logging.getLogger(__name__).warning("%s.%s is not in the reference", module, name)


def setup(app):
    app.connect("missing-reference", link_short_names)
    app.connect("autodoc-process-signature", signature_of_init)
    app.connect("autodoc-skip-member", skip_aliases)
    app.connect("env-check-consistency", check_names)
    return {"parallel_read_safe": True}
