//! A shorter way for flat objects: members that are strings without escapes, whole numbers, literals or lists of such
//! strings, which is what most commands are. One pass over the text, where the general parser makes three (the
//! precheck, its index of structure with UTF-8, its tape) and copies the text first.
//!
//! Never refuses anything: whatever it does not know goes to the general parser, which decides what it is. Of what it
//! takes, the general parser would make the same nodes.

use simd_json::{Node, StaticNode};

use super::json::plain_len;

/// Objects of more nodes than this, about 24 KiB of pieces, are left to the general parser.
const PIECES_MAX: usize = 1024;

/// One node, before it may borrow the text.
pub(super) enum Piece {
    /// From where to where in the text.
    String(usize, usize),
    Other(Node<'static>),
}

impl Piece {
    /// `text` is what the piece was found in.
    pub(super) fn node<'a>(&self, text: &'a str) -> Node<'a> {
        match *self {
            Self::String(from, to) => Node::String(&text[from..to]),
            Self::Other(node) => node,
        }
    }
}

/// Fills `pieces` with the nodes of a flat object. If `text` is none, says up to where it looked like one: whole
/// members and names, in which the precheck would find nothing. UTF-8 is the caller's to check.
pub(super) fn scan(text: &[u8], pieces: &mut Vec<Piece>) -> Result<(), usize> {
    pieces.clear();
    let mut scanner = Scanner { text, at: 0, flat_len: 0, pieces };
    scanner.object().ok_or(scanner.flat_len)
}

struct Scanner<'t> {
    text: &'t [u8],
    at: usize,
    flat_len: usize,
    pieces: &'t mut Vec<Piece>,
}

impl Scanner<'_> {
    fn object(&mut self) -> Option<()> {
        self.take(b'{')?;
        self.list(b'}', |len, count| Node::Object { len, count }, Self::member)?;
        self.next().is_none().then_some(())
    }

    /// At least one `item`, with commas between them, up to and with `close`; makes a `node` of their number and their
    /// nodes' number.
    fn list(
        &mut self,
        close: u8,
        node: impl Fn(usize, usize) -> Node<'static>,
        item: impl Fn(&mut Self) -> Option<()>,
    ) -> Option<()> {
        let place = self.pieces.len();
        self.push(Piece::Other(Node::Static(StaticNode::Null)))?;
        for len in 1.. {
            item(self)?;
            match self.next()? {
                b',' => {}
                byte if byte == close => {
                    self.pieces[place] = Piece::Other(node(len, self.pieces.len() - place - 1));
                    return Some(());
                }
                _ => break,
            }
        }
        None
    }

    fn member(&mut self) -> Option<()> {
        self.string()?;
        self.take(b':')?;
        self.flat_len = self.at;
        match self.next()? {
            b'"' => self.rest_of_string(),
            b'[' => self.list(b']', |len, count| Node::Array { len, count }, Self::string),
            b't' => self.literal(b"rue", StaticNode::Bool(true)),
            b'f' => self.literal(b"alse", StaticNode::Bool(false)),
            b'n' => self.literal(b"ull", StaticNode::Null),
            digit @ b'0'..=b'9' => self.number(digit),
            _ => None,
        }
    }

    fn string(&mut self) -> Option<()> {
        self.take(b'"')?;
        self.rest_of_string()
    }

    fn rest_of_string(&mut self) -> Option<()> {
        let from = self.at;
        self.at += plain_len(&self.text[from..]);
        self.push(Piece::String(from, self.at))?;
        let is_whole = self.text.get(self.at) == Some(&b'"');
        self.at += 1;
        is_whole.then_some(())
    }

    fn literal(&mut self, rest: &[u8], value: StaticNode) -> Option<()> {
        self.at += self.text[self.at..].starts_with(rest).then_some(rest.len())?;
        self.push(Piece::Other(Node::Static(value)))
    }

    /// What is behind the first digit. No number of 19 digits overflows.
    fn number(&mut self, digit: u8) -> Option<()> {
        let (from, mut number) = (self.at, u64::from(digit - b'0'));
        while let Some(digit @ b'0'..=b'9') = self.text.get(self.at) {
            number = number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            self.at += 1;
        }
        self.push(Piece::Other(Node::Static(StaticNode::U64(number))))?;
        (self.at == from || digit != b'0' && self.at - from < 19).then_some(())
    }

    fn push(&mut self, piece: Piece) -> Option<()> {
        (self.pieces.len() < PIECES_MAX).then(|| self.pieces.push(piece))
    }

    /// The next byte, if it is this one.
    fn take(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    /// The next byte that is no white space.
    fn next(&mut self) -> Option<u8> {
        loop {
            let byte = *self.text.get(self.at)?;
            self.at += 1;
            if !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                return Some(byte);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::precheck;
    use super::*;

    /// Parts that make flat objects often, and everything else that may come between.
    fn texts() -> impl Strategy<Value = String> {
        let scalar = r#""[a-zé+/#]{0,40}"|[0-9]{1,20}|true|false|null|\["a"(, ?"b/+"){0,3}\]"#;
        let odd = r#"-1|1\.5|01|1x|\{\}|\[\]|\[1\]|"\\[nu]d83d"|"[\t\x00-\x1f]"|\x00|tru|"|,"#;
        let value = prop_oneof![8 => scalar, 1 => odd];
        let member = (r#" ?"[a-z]{0,9}""#, " ?:\n?", value).prop_map(|(name, colon, value)| name + &colon + &value);
        let members = prop::collection::vec(member, 0..5).prop_map(|members| members.join(","));
        (prop_oneof![20 => Just("{"), 1 => Just("[")], members, prop_oneof![20 => "\\} ?", 1 => "|,\\}|\\}x"])
            .prop_map(|(open, members, close)| format!("{open}{members}{close}"))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn the_general_parser_agrees(text in texts()) {
            let mut pieces = Vec::new();
            let scanned = scan(text.as_bytes(), &mut pieces);
            let checked = precheck::check(text.as_bytes());
            if let Err(flat_len) = scanned {
                prop_assert_eq!(precheck::check(&text.as_bytes()[flat_len..]), checked);
                return Ok(());
            }
            prop_assert_eq!(checked, Ok(()));
            let mut bytes = text.clone().into_bytes();
            let tape = simd_json::to_tape(&mut bytes).expect("JSON");
            prop_assert_eq!(pieces.iter().map(|piece| piece.node(&text)).collect::<Vec<_>>(), tape.0);
        }
    }

    #[test]
    fn commands_are_flat() {
        let flat = |text: &str| scan(text.as_bytes(), &mut Vec::new());
        for text in [
            r#"{"type":"ping","id":7}"#,
            "{ \"type\" : \"subscribe\",\r\n\t\"topics\" : [ \"a\" , \"b/#\" ] }\n",
            r#"{"type":"publish","topic":"a","data":"größe","ack":false}"#,
            r#"{"type":"publish","topic":"a","data":"x","key":"k","retain":true,"ttl":60000,"idempotency_key":"5f","if_offset":7}"#,
            r#"{"type":"publish","topic":"a","key":"k","removed":true,"if_offset":"absent"}"#,
            r#"{"type":"subscribe","topics":["a","b"],"last":50,"state":false}"#,
            r#"{"type":"history","topic":"a","limit":1000,"reverse":true}"#,
        ] {
            assert_eq!(flat(text), Ok(()), "{text}");
        }
        assert_eq!(flat(r#"{"id":7,"data":{"x":1}}"#), Err(15));
        assert_eq!(flat("{\"data\":\"two\nlines\"}"), Err(8));
        assert_eq!(flat(r#"{"id":18446744073709551616}"#), Err(6));
    }
}
