//! Policy files of small worlds: mobiles with the uplink `wlan0`, and their agents.

/// A mobile of the home network `2001:db8:<home>::/64`; `says` are further statements of its home.
pub fn mobile(role: &str, home: u16, host: u16, says: &str) -> String {
    format!(
        "/- kdl-version 2
policy \"mobile\" schema=1
role \"{role}\"
interface \"wlan0\" {{ usable {{ hold up=\"0s\"; }}; bid 1; priority 10; }}
home \"h\" {{
    tunnel mtun0
    agent \"2001:db8:{home:x}::1\"
    address \"2001:db8:{home:x}::{host:x}/64\"
{says}    security \"sa\"
}}
security \"sa\" {{ auth-option spi=0x1001 algorithm=hmac-sha256 key-file=\"h.key\"; }}
rules home=h {{ default {{ prefer wlan0; }} }}
"
    )
}

/// Statements for these networks, each with the same further words.
pub fn networks<P: AsRef<str>>(prefixes: &[P], with: &str) -> String {
    let statement = |prefix: &P| format!("    mobile-network \"{}\" {with}\n", prefix.as_ref());
    prefixes.iter().map(statement).collect()
}

/// The agent of these mobiles, each with its prefixes.
pub fn agent<P: AsRef<str>>(home: u16, mobiles: &[(u16, &[P])]) -> String {
    let mut text = format!(
        "/- kdl-version 2
policy \"agent\" schema=1
role \"home-agent\"
home \"h\" {{
    tunnel mtun0
    serve \"2001:db8:{home:x}::/64\" agent=\"2001:db8:{home:x}::1\"
"
    );
    for (host, prefixes) in mobiles {
        text += &format!("    allow \"2001:db8:{home:x}::{host:x}\" {{ security \"sa\"; ");
        for prefix in *prefixes {
            text += &format!("mobile-network \"{}\"; ", prefix.as_ref());
        }
        text += "}\n";
    }
    text + "}
security \"sa\" { auth-option spi=0x1001 algorithm=hmac-sha256 key-file=\"h.key\"; }
"
}
