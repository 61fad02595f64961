"""In docstrings, `top_n` alone is a link to wherever that name is documented, if it is in one place."""

from sphinx.util.nodes import make_refnode


def resolve(app, env, node, contnode):
    if node.get("refdomain") != "py":
        return None
    domain, target = env.get_domain("py"), node["reftarget"].removesuffix("()")
    found = domain.find_obj(env, node.get("py:module"), node.get("py:class"), target, None, 1)
    places = {(entry.docname, entry.node_id) for _, entry in found}
    if len(places) != 1:
        return None
    ((docname, node_id),) = places
    return make_refnode(app.builder, node["refdoc"], docname, node_id, contnode, target)


def setup(app):
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True}
