//! The spanned value tree that JSON and YAML are parsed into.
//!
//! One flat tape in the order of the text: a container is followed by what it holds (an object by key, value,
//! key, value, …) and knows where it ends. A file of 100,000 role assignments has some four million nodes, so a
//! node is sixteen bytes, strings stay in the text unless escapes force a copy, and nothing is freed one by one.

use crate::model::At;

/// No input nests deeper than this; the deepest real documents are management-group trees and ARM templates.
pub(super) const MAX_DEPTH: usize = 128;

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    True,
    False,
    Number,
    String,
    Array,
    Object,
}

/// One parsed file: its values one after another.
#[derive(Debug, Default)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    /// Strings that are not in the text as they are meant.
    owned: Vec<Box<str>>,
    /// The nodes of the top-level values.
    roots: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    start: u32,
    end: u32,
    /// Of a container: the index behind its last descendant. Of an owned string: its index.
    data: u32,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Null,
    True,
    False,
    Number,
    /// The text between two quotes.
    Quoted,
    /// The text itself.
    Plain,
    Owned,
    Array,
    Object,
}

/// A string as a parser found it.
pub(super) enum Found {
    /// It stands in the text, between quotes.
    Quoted,
    /// It stands in the text.
    Plain,
    /// It had to be put together.
    Owned(Box<str>),
}

/// Why a text is no value: one per file (or line, where lines are values of their own).
#[derive(Debug)]
pub(super) struct Syntax {
    pub(super) start: usize,
    pub(super) end: usize,
    /// Lower case, no full stop.
    pub(super) message: String,
    pub(super) code: &'static str,
    pub(super) help: Option<&'static str>,
}

/// One file, parsed: what values are views of.
#[derive(Debug)]
pub(super) struct File<'t> {
    /// Index into `Documents::files`.
    pub(super) index: u32,
    pub(super) text: &'t str,
    pub(super) tree: &'t Tree,
}

/// One value of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value<'t> {
    file: &'t File<'t>,
    node: u32,
}

/// One property of an object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'t> {
    pub(super) name: &'t str,
    pub(super) key: Value<'t>,
    pub(super) value: Value<'t>,
}

// === reading ===

impl Tree {
    pub(super) fn roots(&self) -> &[u32] {
        &self.roots
    }

    fn node(&self, index: u32) -> Option<&Node> {
        self.nodes.get(usize::try_from(index).ok()?)
    }

    /// The index behind a node and everything in it.
    fn behind(&self, index: u32) -> u32 {
        match self.node(index) {
            Some(Node { form: Form::Array | Form::Object, data, .. }) => *data,
            _ => index.saturating_add(1),
        }
    }

    /// The node that spans exactly this place. Of an object and its first key, which share their beginning in
    /// YAML, the end decides.
    fn at(&self, at: At) -> Option<u32> {
        let first = self.nodes.partition_point(|node| node.start < at.start);
        let same_start = self.nodes.get(first..)?.iter().take_while(|node| node.start == at.start);
        let offset = same_start.enumerate().find(|(_, node)| node.end == at.end).map(|(offset, _)| offset)?;
        u32::try_from(first.saturating_add(offset)).ok()
    }
}

impl<'t> File<'t> {
    /// The top-level values.
    pub(super) fn values(&'t self) -> impl Iterator<Item = Value<'t>> {
        self.tree.roots().iter().map(move |&node| Value { file: self, node })
    }

    /// The field path of a place, seen from the innermost of the documents (ascending nodes) that holds it.
    pub(super) fn path(&self, documents: &[u32], at: At) -> Option<String> {
        let target = self.tree.at(at)?;
        let before = documents.partition_point(|&node| node <= target);
        let holders = documents.get(..before)?.iter().rev();
        let document = *holders.into_iter().find(|&&node| target < self.tree.behind(node))?;
        let mut path = String::new();
        let mut current = document;
        while current != target {
            let holder = Value { file: self, node: current };
            let holds = |value: &Value<'_>| value.node <= target && target < self.tree.behind(value.node);
            if let Some((position, inner)) = holder.elements().enumerate().find(|(_, value)| holds(value)) {
                path.push_str(&format!("[{position}]"));
                current = inner.node;
            } else {
                // The key itself stands for the property too: problems point at it.
                let entry = holder.entries().find(|entry| holds(&entry.value) || entry.key.node == target)?;
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(entry.name);
                current = if entry.key.node == target { target } else { entry.value.node };
            }
        }
        Some(path)
    }
}

impl<'t> Value<'t> {
    /// The node, for lists of documents.
    pub(super) const fn node(&self) -> u32 {
        self.node
    }

    pub(super) const fn file(&self) -> u32 {
        self.file.index
    }

    fn raw(&self) -> Option<&'t Node> {
        self.file.tree.node(self.node)
    }

    pub(super) fn kind(&self) -> Kind {
        match self.raw().map(|node| node.form) {
            Some(Form::True) => Kind::True,
            Some(Form::False) => Kind::False,
            Some(Form::Number) => Kind::Number,
            Some(Form::Quoted | Form::Plain | Form::Owned) => Kind::String,
            Some(Form::Array) => Kind::Array,
            Some(Form::Object) => Kind::Object,
            Some(Form::Null) | None => Kind::Null,
        }
    }

    pub(super) fn at(&self) -> At {
        let (start, end) = self.raw().map_or((0, 0), |node| (node.start, node.end));
        At { file: self.file.index, start, end }
    }

    /// The string, if it is one.
    pub(super) fn as_str(&self) -> Option<&'t str> {
        let node = self.raw()?;
        match node.form {
            Form::Quoted => slice(self.file.text, node.start.checked_add(1)?, node.end.checked_sub(1)?),
            Form::Plain => slice(self.file.text, node.start, node.end),
            Form::Owned => self.file.tree.owned.get(usize::try_from(node.data).ok()?).map(AsRef::as_ref),
            _ => None,
        }
    }

    /// What is shown of a scalar in a problem.
    pub(super) fn shown(&self) -> Option<&'t str> {
        let node = self.raw()?;
        match node.form {
            Form::Quoted | Form::Plain | Form::Owned => self.as_str(),
            Form::Array | Form::Object => None,
            _ => slice(self.file.text, node.start, node.end),
        }
    }

    pub(super) fn is_null(&self) -> bool {
        self.kind() == Kind::Null
    }

    fn children(&self, wanted: Form) -> Children<'t> {
        let next = self.node.saturating_add(1);
        let end = match self.raw() {
            Some(node) if node.form == wanted => node.data,
            _ => next,
        };
        Children { file: self.file, next, end }
    }

    /// What an array holds; nothing for anything else.
    pub(super) fn elements(&self) -> impl Iterator<Item = Value<'t>> + use<'t> {
        self.children(Form::Array)
    }

    /// What an object holds; nothing for anything else.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry<'t>> + use<'t> {
        let mut children = self.children(Form::Object);
        std::iter::from_fn(move || {
            let key = children.next()?;
            Some(Entry { name: key.as_str().unwrap_or_default(), key, value: children.next()? })
        })
    }

    /// A property by name, in any letter case, whatever its value.
    pub(super) fn property(&self, name: &str) -> Option<Value<'t>> {
        self.entries().find(|entry| entry.name.eq_ignore_ascii_case(name)).map(|entry| entry.value)
    }

    /// A property that is there and not null.
    pub(super) fn get(&self, name: &str) -> Option<Value<'t>> {
        self.property(name).filter(|value| !value.is_null())
    }
}

struct Children<'t> {
    file: &'t File<'t>,
    next: u32,
    end: u32,
}

impl<'t> Iterator for Children<'t> {
    type Item = Value<'t>;

    fn next(&mut self) -> Option<Value<'t>> {
        if self.next >= self.end {
            return None;
        }
        let value = Value { file: self.file, node: self.next };
        self.next = self.file.tree.behind(self.next);
        Some(value)
    }
}

fn slice(text: &str, start: u32, end: u32) -> Option<&str> {
    text.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
}

impl Kind {
    /// With its article, for messages.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::True | Self::False => "a boolean",
            Self::Number => "a number",
            Self::String => "a string",
            Self::Array => "a list",
            Self::Object => "an object",
        }
    }
}

impl Syntax {
    pub(super) fn new(start: usize, end: usize, message: impl Into<String>) -> Self {
        Self { start, end, message: message.into(), code: "SyntaxError", help: None }
    }
}

// === building ===

/// Lays nodes one after another.
#[derive(Debug, Default)]
pub(super) struct Builder {
    tree: Tree,
    /// The containers that are open, outermost first.
    open: Vec<u32>,
}

/// A length of the tree, to come back to when what follows is broken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Checkpoint {
    nodes: usize,
    owned: usize,
    roots: usize,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn depth(&self) -> usize {
        self.open.len()
    }

    /// Whether the innermost open container is an object; `None` at the top.
    pub(super) fn in_object(&self) -> Option<bool> {
        let node = self.tree.node(*self.open.last()?)?;
        Some(node.form == Form::Object)
    }

    pub(super) fn null(&mut self, start: usize, end: usize) -> Result<(), Syntax> {
        self.push(start, end, Form::Null, 0)
    }

    pub(super) fn boolean(&mut self, start: usize, end: usize, value: bool) -> Result<(), Syntax> {
        self.push(start, end, if value { Form::True } else { Form::False }, 0)
    }

    pub(super) fn number(&mut self, start: usize, end: usize) -> Result<(), Syntax> {
        self.push(start, end, Form::Number, 0)
    }

    /// A string or a key.
    pub(super) fn string(&mut self, start: usize, end: usize, found: Found) -> Result<(), Syntax> {
        match found {
            Found::Quoted => self.push(start, end, Form::Quoted, 0),
            Found::Plain => self.push(start, end, Form::Plain, 0),
            Found::Owned(text) => {
                let index = count(self.tree.owned.len());
                self.tree.owned.push(text);
                self.push(start, end, Form::Owned, index)
            }
        }
    }

    pub(super) fn open_array(&mut self, start: usize) -> Result<(), Syntax> {
        self.open(start, Form::Array)
    }

    pub(super) fn open_object(&mut self, start: usize) -> Result<(), Syntax> {
        self.open(start, Form::Object)
    }

    /// Closes the innermost container.
    pub(super) fn close(&mut self, text: &str, end: usize) -> Result<(), Syntax> {
        let Some(index) = self.open.pop() else {
            return Err(Syntax::new(end, end, "a closing bracket that nothing opened"));
        };
        let behind = count(self.tree.nodes.len());
        if let Some(node) = usize::try_from(index).ok().and_then(|index| self.tree.nodes.get_mut(index)) {
            node.end = count(end);
            node.data = behind;
            if node.form == Form::Object {
                return self.refuse_twins(text, index);
            }
        }
        Ok(())
    }

    /// Remembers how far the tree goes.
    pub(super) fn checkpoint(&self) -> Checkpoint {
        let Tree { nodes, owned, roots } = &self.tree;
        Checkpoint { nodes: nodes.len(), owned: owned.len(), roots: roots.len() }
    }

    /// How many top-level values came since.
    pub(super) fn roots_since(&self, checkpoint: &Checkpoint) -> usize {
        self.tree.roots.len().saturating_sub(checkpoint.roots)
    }

    /// Forgets what came since.
    pub(super) fn back_to(&mut self, checkpoint: Checkpoint) {
        self.tree.nodes.truncate(checkpoint.nodes);
        self.tree.owned.truncate(checkpoint.owned);
        self.tree.roots.truncate(checkpoint.roots);
        self.open.clear();
    }

    pub(super) fn finish(self) -> Tree {
        self.tree
    }

    fn open(&mut self, start: usize, form: Form) -> Result<(), Syntax> {
        if self.open.len() >= MAX_DEPTH {
            return Err(Syntax {
                code: "NestingTooDeep",
                ..Syntax::new(start, start.saturating_add(1), format!("nested more than {MAX_DEPTH} deep"))
            });
        }
        let index = count(self.tree.nodes.len());
        self.push(start, start, form, index.saturating_add(1))?;
        self.open.push(index);
        Ok(())
    }

    fn push(&mut self, start: usize, end: usize, form: Form, data: u32) -> Result<(), Syntax> {
        let index = count(self.tree.nodes.len());
        if index == u32::MAX {
            return Err(Syntax::new(start, end, "more values than one file may hold"));
        }
        if self.open.is_empty() {
            self.tree.roots.push(index);
        }
        self.tree.nodes.push(Node { start: count(start), end: count(end), data, form });
        Ok(())
    }

    /// The same name twice in one object means whatever the reader pleases, so it means nothing here.
    fn refuse_twins(&self, text: &str, object: u32) -> Result<(), Syntax> {
        let file = File { index: 0, text, tree: &self.tree };
        let object = Value { file: &file, node: object };
        let twin = |name: &str, key: Value<'_>| {
            let at = key.at();
            let (start, end) = (at.start.try_into().unwrap_or(0), at.end.try_into().unwrap_or(0));
            Err(Syntax {
                code: "DuplicateProperty",
                help: Some("keep one of them"),
                ..Syntax::new(start, end, format!("`{name}` stands twice in one object"))
            })
        };
        if object.entries().nth(FEW).is_some() {
            let mut seen = std::collections::HashSet::new();
            for entry in object.entries() {
                if !seen.insert(entry.name) {
                    return twin(entry.name, entry.key);
                }
            }
            return Ok(());
        }
        let mut seen = smallvec::SmallVec::<[&str; FEW]>::new();
        for entry in object.entries() {
            if seen.contains(&entry.name) {
                return twin(entry.name, entry.key);
            }
            seen.push(entry.name);
        }
        Ok(())
    }
}

/// Up to here comparing each with each beats hashing.
const FEW: usize = 32;

/// Files are bounded far below 4 GiB.
fn count(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
