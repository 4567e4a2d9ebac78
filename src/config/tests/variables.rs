//! The variables of endpoints.

use super::{World, bearer};

#[test]
fn a_variable_of_an_endpoint_overrides_the_file() {
    let config = World::new()
        .toml("[webhooks.my-partner]\nauth = 'bearer'\ntokens = ['old']")
        .environment([("CALLSTATE_WEBHOOKS_MY_PARTNER_TOKENS", "new")])
        .right();
    assert_eq!(config.webhooks.len(), 1);
    assert_eq!(config.webhooks["my-partner"].auth, bearer(&["new"]));
}

#[test]
fn endpoints_that_would_share_their_variables_are_a_mistake() {
    let endpoint = |name| format!("[webhooks.{name}]\nauth = 'none'\n");
    for (one, other) in [("my-partner", "my_partner"), ("Partner", "partner")] {
        let wrong = World::new().toml(&(endpoint(one) + &endpoint(other))).wrong();
        let mistake = format!(
            "callstate.toml: webhooks.{other}: has the same variables as webhooks.{one}; give one \
             another name"
        );
        assert_eq!(wrong, [mistake]);
    }
    World::new().toml(&(endpoint("my-partner") + &endpoint("mypartner"))).right();
}
