"""How each option of `auth_bearer` shows; see `../test_no_inert_option.py`."""

from pathlib import Path

_DATA = Path(__file__).resolve().parents[2] / "data" / "auth"

_FILE = "middlewares/auth/test_auth_bearer.py"
_CALLER = f"{_FILE}::test_a_token_establishes_its_caller"
_CHOSEN = f"{_FILE}::test_algorithms_leeway_and_claims_are_chosen"
_ENDPOINT = f"{_FILE}::test_each_endpoint_has_its_own_address"
_REVOKED = f"{_FILE}::test_a_revoked_token_is_refused_soon"
_SCOPES = f"{_FILE}::test_who_lacks_a_scope_is_told_all_that_are_needed"

REQUIRED = {
    "issuer": "https://id.example.com",
    "resource": "https://gateway.example.com/mcp",
    "jwks": {"from_file": str(_DATA / "jwks.json")},
    "optional": True,
}

ROWS = {
    "auth_bearer.algorithms": {"by": _CHOSEN},
    "auth_bearer.allow_private": {"by": "middlewares/auth/test_fetching.py::test_private_places_are_reached_if_meant"},
    "auth_bearer.audiences": {"by": f"{_FILE}::test_other_audiences_can_be_named"},
    "auth_bearer.ca": {"by": f"{_FILE}::test_the_certificates_to_trust_can_be_ones_own"},
    "auth_bearer.claims": {"by": _CALLER},
    "auth_bearer.claims.roles": {"by": _CALLER},
    "auth_bearer.claims.scopes": {"by": _CHOSEN},
    "auth_bearer.claims.subject": {"by": _CHOSEN},
    "auth_bearer.claims.tenant": {"by": _CALLER},
    "auth_bearer.claims.tenants": {"by": _CALLER},
    "auth_bearer.documentation": {"by": _ENDPOINT},
    "auth_bearer.fetch_timeout": {"by": f"{_FILE}::test_a_silent_issuer_costs_a_bounded_time"},
    "auth_bearer.implies": {"by": f"{_FILE}::test_a_scope_can_include_others"},
    "auth_bearer.introspection": {"by": f"{_FILE}::test_an_opaque_token_is_asked_about_once"},
    "auth_bearer.introspection.client_id": {
        "by": f"{_FILE}::test_an_opaque_token_is_asked_about_once",
        "word": "introspection",
    },
    "auth_bearer.introspection.client_secret": {
        "by": f"{_FILE}::test_an_opaque_token_is_asked_about_once",
        "word": "introspection",
    },
    "auth_bearer.introspection.remember": {"by": _REVOKED},
    "auth_bearer.introspection.url": {"by": _REVOKED},
    "auth_bearer.issuer": {"by": f"{_FILE}::test_keys_are_discovered_and_fetched", "word": "server"},
    "auth_bearer.jwks": {"by": f"{_FILE}::test_a_shared_key_of_ones_own"},
    "auth_bearer.jwks_url": {"by": f"{_FILE}::test_what_is_no_key_set_is_not_taken"},
    "auth_bearer.jwt": {"by": f"{_FILE}::test_with_jwt_off_every_token_is_asked_about"},
    "auth_bearer.keep_stale": {
        "by": "middlewares/auth/test_key_ring.py::test_keys_do_not_outlast_their_issuer_for_ever"
    },
    "auth_bearer.leeway": {"by": _CHOSEN},
    "auth_bearer.max_remembered": {"by": f"{_FILE}::test_a_verified_token_is_remembered_until_it_expires"},
    "auth_bearer.needs": {"by": _SCOPES},
    "auth_bearer.needs.scopes": {"by": _SCOPES},
    "auth_bearer.needs.when": {"by": _SCOPES},
    "auth_bearer.optional": {"by": f"{_FILE}::test_an_optional_stage_leaves_other_credentials_to_the_next"},
    "auth_bearer.prefix": {"by": _CALLER},
    "auth_bearer.refresh": {"by": f"{_FILE}::test_keys_outlast_an_issuer_that_is_down"},
    "auth_bearer.refresh_at_most": {"by": f"{_FILE}::test_made_up_key_ids_do_not_make_a_flood"},
    "auth_bearer.require": {"by": _SCOPES},
    "auth_bearer.resource": {"by": _ENDPOINT},
    "auth_bearer.resources": {"by": _ENDPOINT},
    "auth_bearer.title": {"by": _ENDPOINT},
    "auth_bearer.types": {"by": f"{_FILE}::test_other_audiences_can_be_named"},
}
