//! What a function can see of its arguments, and whether it changes them.
//!
//! A script looks at a few entries of a question, and making values of the others costs more than most scripts do. Here
//! its functions are followed from their parameters: which entries they name, through variables and through calls of
//! each other. Whatever is done with a record other than naming an entry of it means all of it: it is counted, printed,
//! compared, iterated, given to something else, indexed by a name that is not known. So the answer is the same as
//! with everything, which the tests beside this hold.

use std::collections::{BTreeMap, BTreeSet};

use rhai::{AST, ASTFlags, ASTNode, Expr, FnCallExpr, ImmutableString, ScriptFuncDef, Stmt};

use crate::{builtins, source};

/// The longest path that is followed; what is below is needed whole.
const DEEPEST: usize = 4;
/// How often the functions are gone through, and each of them. Who calls each other in larger circles needs everything.
const MOST_ROUNDS: usize = 8;

/// What is needed of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Need {
    /// All of it.
    Whole,
    /// Of a record these entries; of anything else, all of it.
    Entries(BTreeMap<ImmutableString, Need>),
}

/// What a function does with one of its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) need: Need,
    /// It may leave something else in its parameter than it was given.
    pub(crate) changes: bool,
}

impl Use {
    pub(crate) const NOTHING: Self = Self { need: Need::NOTHING, changes: false };
    const ANYTHING: Self = Self { need: Need::Whole, changes: true };
}

/// What functions do with their arguments, by name and number of parameters.
pub(crate) struct Uses(BTreeMap<(ImmutableString, usize), Vec<Use>>);

/// Functions of the library that leave what they are called on as it is.
const LEAVE_IT: [&str; 10] =
    ["contains", "deny", "ends_with", "get", "index_of", "is_empty", "keys", "len", "starts_with", "wait"];

type Path = Vec<ImmutableString>;

impl Need {
    /// That it is there, and what it is; of a record no entry.
    pub(crate) const NOTHING: Self = Self::Entries(BTreeMap::new());

    fn add(&mut self, other: &Self) {
        match (&mut *self, other) {
            (Self::Whole, _) => {}
            (_, Self::Whole) => *self = Self::Whole,
            (Self::Entries(mine), Self::Entries(others)) => {
                for (name, need) in others {
                    mine.entry(name.clone()).or_insert(Self::NOTHING).add(need);
                }
            }
        }
    }

    fn add_at(&mut self, path: &[ImmutableString], need: &Self) {
        match (&mut *self, path) {
            (_, []) => self.add(need),
            (Self::Whole, _) => {}
            (Self::Entries(entries), [first, rest @ ..]) => {
                entries.entry(first.clone()).or_insert(Self::NOTHING).add_at(rest, need);
            }
        }
    }

    /// The ways to everything that is needed; none where that is all of it.
    pub(crate) fn paths(&self) -> Option<Vec<Vec<String>>> {
        let Self::Entries(entries) = self else { return None };
        let below = entries.iter().flat_map(|(name, need)| {
            let rest = need.paths().filter(|paths| !paths.is_empty()).unwrap_or_else(|| vec![Vec::new()]);
            rest.into_iter().map(|rest| [vec![name.to_string()], rest].concat())
        });
        Some(below.collect())
    }

    /// The same, and everything below `DEEPEST`.
    fn cut(&mut self, depth: usize) {
        if let Self::Entries(entries) = self {
            if depth == 0 && !entries.is_empty() {
                *self = Self::Whole;
            } else {
                entries.values_mut().for_each(|need| need.cut(depth.saturating_sub(1)));
            }
        }
    }
}

impl Uses {
    /// Of all functions of a script, in the form in which they are run.
    pub(crate) fn of(ast: &AST) -> Self {
        let mut functions = callees_first(ast);
        // Where one has several forms for different kinds of `this`, which is meant shows when it is called.
        let mut forms = BTreeMap::<_, usize>::new();
        for function in ast.iter_fn_def() {
            *forms.entry((function.name.clone(), function.params.len())).or_default() += 1;
        }
        let nothing = forms.iter().map(|(name, forms)| {
            let used = if *forms == 1 { Use::NOTHING } else { Use::ANYTHING };
            (name.clone(), vec![used; name.1])
        });
        let mut uses = Self(nothing.collect());
        functions.retain(|(function, _)| {
            forms.get(&(function.name.clone(), function.params.len())).is_some_and(|forms| *forms == 1)
        });
        for _ in 0..MOST_ROUNDS {
            let mut changed = false;
            for (function, statements) in &functions {
                let found = Walk::function(&function.params, statements, &uses);
                let known = uses.0.entry((function.name.clone(), function.params.len())).or_default();
                changed |= *known != found;
                *known = found;
            }
            if !changed {
                return uses;
            }
        }
        for all in uses.0.values_mut() {
            all.fill(Use::ANYTHING);
        }
        uses
    }

    /// What this function does with its arguments.
    pub(crate) fn of_function(&self, name: &str, parameters: usize) -> &[Use] {
        self.0.get(&(name.into(), parameters)).map_or(&[], Vec::as_slice)
    }
}

/// The functions of a script with their statements, those that are called before those that call them.
fn callees_first(ast: &AST) -> Vec<(&ScriptFuncDef, Vec<Stmt>)> {
    let all = ast.iter_fn_def().map(|function| {
        let name = (function.name.clone(), function.params.len());
        (name, (&**function, source::statements(function, ast)))
    });
    let mut left: BTreeMap<(ImmutableString, usize), _> = all.collect();
    let mut sorted = Vec::new();
    while let Some((_, first)) = left.pop_first() {
        // Functions that wait for those that they call.
        let mut open = vec![(called(&first.1), first)];
        while let Some((calls, _)) = open.last_mut() {
            match calls.pop().map(|name| left.remove(&name)) {
                Some(Some(next)) => open.push((called(&next.1), next)),
                Some(None) => {}
                None => sorted.extend(open.pop().map(|(_, done)| done)),
            }
        }
    }
    sorted
}

fn called(statements: &[Stmt]) -> Vec<(ImmutableString, usize)> {
    let mut names = BTreeSet::new();
    for statement in statements {
        statement.walk(&mut Vec::new(), &mut |path| {
            if let Some(ASTNode::Stmt(Stmt::FnCall(call, _)) | ASTNode::Expr(Expr::FnCall(call, _))) =
                path.last()
            {
                names.insert((call.name.clone(), call.args.len()));
            }
            true
        });
    }
    names.into_iter().collect()
}

/// One function, gone through.
struct Walk<'a> {
    uses: &'a Uses,
    parameters: &'a [ImmutableString],
    /// What variables can hold of the parameters: which one, and the way to it.
    variables: BTreeMap<ImmutableString, BTreeSet<(usize, Path)>>,
    found: Vec<Use>,
}

/// A step from a value into it.
pub(crate) enum Step<'a> {
    Entry(&'a ImmutableString),
    Call(&'a FnCallExpr),
    Other(&'a Expr),
}

impl<'a> Walk<'a> {
    fn function(parameters: &'a [ImmutableString], statements: &[Stmt], uses: &'a Uses) -> Vec<Use> {
        let variables = parameters.iter().enumerate();
        let variables = variables.map(|(at, name)| (name.clone(), BTreeSet::from([(at, Path::new())])));
        let mut walk = Self {
            uses,
            parameters,
            variables: variables.collect(),
            found: vec![Use::NOTHING; parameters.len()],
        };
        // Until no variable can hold more: a loop may use one before the line that sets it.
        for _ in 0..MOST_ROUNDS {
            let before = walk.variables.clone();
            walk.statements(statements);
            if walk.variables == before {
                walk.found.iter_mut().for_each(|found| found.need.cut(DEEPEST));
                return walk.found;
            }
        }
        walk.everything();
        walk.found
    }

    fn everything(&mut self) {
        self.found = vec![Use::ANYTHING; self.parameters.len()];
    }

    fn statements(&mut self, statements: &[Stmt]) {
        statements.iter().for_each(|statement| self.statement(statement));
    }

    fn statement(&mut self, statement: &Stmt) {
        match statement {
            Stmt::Noop(_) => {}
            Stmt::Var(named, ..) => self.set(&named.0.name, &named.1),
            Stmt::If(flow, _) | Stmt::While(flow, _) | Stmt::Do(flow, ..) | Stmt::TryCatch(flow, _) => {
                self.whole(&flow.expr);
                self.statements(flow.body.statements());
                self.statements(flow.branch.statements());
            }
            Stmt::For(parts, _) => {
                self.whole(&parts.2.expr);
                self.statements(parts.2.body.statements());
            }
            Stmt::Switch(parts, _) => {
                self.whole(&parts.0);
                for case in &parts.1.expressions {
                    self.whole(&case.lhs);
                    self.whole(&case.rhs);
                }
            }
            Stmt::Assignment(parts) => {
                self.changes(&parts.1.lhs);
                self.whole(&parts.1.lhs);
                self.whole(&parts.1.rhs);
            }
            Stmt::FnCall(call, _) => self.call(call),
            Stmt::Block(block) => self.statements(block.statements()),
            Stmt::Expr(expression) => self.whole(expression),
            Stmt::BreakLoop(value, ..) | Stmt::Return(value, ..) => {
                value.iter().for_each(|value| self.whole(value));
            }
            Stmt::Share(shared) => {
                for (named, _) in shared.iter() {
                    self.variable(&named.name, &[], &Need::Whole);
                    self.changes_variable(&named.name);
                }
            }
            _ => self.everything(),
        }
    }

    fn whole(&mut self, expression: &Expr) {
        self.expression(expression, &Need::Whole);
    }

    /// An expression, and what is needed of its value.
    fn expression(&mut self, expression: &Expr, need: &Need) {
        match expression {
            Expr::Variable(named, ..) => self.variable(&named.1, &[], need),
            Expr::Dot(..) | Expr::Index(..) => self.chain(expression, need),
            Expr::FnCall(call, _) | Expr::MethodCall(call, _) => self.call(call),
            Expr::InterpolatedString(parts, _) | Expr::Array(parts, _) => {
                parts.iter().for_each(|part| self.whole(part));
            }
            Expr::Map(parts, _) => parts.0.iter().for_each(|(_, value)| self.whole(value)),
            Expr::And(parts, _) | Expr::Or(parts, _) | Expr::Coalesce(parts, _) => {
                parts.iter().for_each(|part| self.whole(part));
            }
            Expr::Stmt(block) => self.statements(block.statements()),
            Expr::DynamicConstant(..)
            | Expr::BoolConstant(..)
            | Expr::IntegerConstant(..)
            | Expr::FloatConstant(..)
            | Expr::CharConstant(..)
            | Expr::StringConstant(..)
            | Expr::Unit(_)
            | Expr::ThisPtr(_)
            | Expr::Property(..) => {}
            _ => self.everything(),
        }
    }

    /// `let name = value`: where the value is an entry of something, the name stands for that entry.
    fn set(&mut self, name: &ImmutableString, value: &Expr) {
        let Some((variable, path)) = entry(value) else { return self.whole(value) };
        // The way there is gone in any case, and fails where it leads nowhere.
        self.variable(variable, &path, &Need::NOTHING);
        let held = self.variables.get(variable).cloned().unwrap_or_default();
        for (parameter, way) in held {
            let way: Path = way.into_iter().chain(path.iter().cloned()).collect();
            if way.len() > DEEPEST {
                if let Some(found) = self.found.get_mut(parameter) {
                    found.need.add_at(&way, &Need::Whole);
                }
            } else {
                self.variables.entry(name.clone()).or_default().insert((parameter, way));
            }
        }
    }

    /// An entry of a variable, and what is needed of it.
    fn variable(&mut self, name: &ImmutableString, path: &[ImmutableString], need: &Need) {
        for (parameter, way) in self.variables.get(name).into_iter().flatten() {
            let way: Path = way.iter().chain(path).cloned().collect();
            if let Some(found) = self.found.get_mut(*parameter) {
                found.need.add_at(&way, need);
            }
        }
    }

    /// What is done to the value of this expression is done to the variable that it begins with.
    fn changes(&mut self, expression: &Expr) {
        if let (Expr::Variable(named, ..), _) = steps(expression) {
            self.changes_variable(&named.1);
        }
    }

    fn changes_variable(&mut self, name: &ImmutableString) {
        for (parameter, _) in self.variables.get(name).into_iter().flatten() {
            if let Some(found) = self.found.get_mut(*parameter) {
                found.changes = true;
            }
        }
    }

    /// Whether a function that is not the script's own leaves its first argument as it is.
    fn leaves_it(&self, name: &ImmutableString) -> bool {
        let own = self.uses.0.keys().any(|(own, _)| own == name);
        !own && (LEAVE_IT.contains(&name.as_str()) || builtins::NAMES.contains(&name.as_str()))
    }

    fn chain(&mut self, expression: &Expr, need: &Need) {
        let (root, steps) = steps(expression);
        let entries: Path = steps
            .iter()
            .map_while(|step| match step {
                Step::Entry(name) => Some((*name).clone()),
                _ => None,
            })
            .collect();
        let need = if entries.len() == steps.len() { need } else { &Need::Whole };
        match root {
            Expr::Variable(named, ..) => self.variable(&named.1, &entries, need),
            other => self.whole(other),
        }
        for step in steps {
            match step {
                Step::Entry(_) => {}
                Step::Call(call) => {
                    if !self.leaves_it(&call.name) {
                        self.changes(expression);
                    }
                    call.args.iter().for_each(|argument| self.whole(argument));
                }
                Step::Other(expression) => self.whole(expression),
            }
        }
    }

    fn call(&mut self, call: &FnCallExpr) {
        if call.capture_parent_scope {
            return self.everything();
        }
        // Whether something is there can be seen without its entries.
        let unit = |argument: &Expr| matches!(argument, Expr::Unit(_));
        if call.op_token.is_some() && ["==", "!="].contains(&call.name.as_str()) && call.args.iter().any(unit)
        {
            return call.args.iter().for_each(|argument| self.expression(argument, &Need::NOTHING));
        }
        let uses = self.uses;
        let own = uses.of_function(&call.name, call.args.len());
        // The library gets its first argument itself where that is a variable, the script's own functions a copy.
        if own.is_empty() && call.op_token.is_none() && !self.leaves_it(&call.name) {
            call.args.iter().take(1).for_each(|first| self.changes(first));
        }
        for (at, argument) in call.args.iter().enumerate() {
            self.expression(argument, own.get(at).map_or(&Need::Whole, |used| &used.need));
        }
    }
}

/// The variable and the names after it, where an expression is nothing else.
fn entry(expression: &Expr) -> Option<(&ImmutableString, Path)> {
    let (root, steps) = match expression {
        Expr::Variable(..) => (expression, Vec::new()),
        Expr::Dot(..) | Expr::Index(..) => steps(expression),
        _ => return None,
    };
    let Expr::Variable(named, ..) = root else { return None };
    let path: Option<Path> = steps
        .into_iter()
        .map(|step| match step {
            Step::Entry(name) => Some(name.clone()),
            _ => None,
        })
        .collect();
    Some((&named.1, path?))
}

/// What a chain such as `a.b["c"].d()` begins with, and its steps. rhai keeps what follows a step within it.
pub(crate) fn steps(expression: &Expr) -> (&Expr, Vec<Step<'_>>) {
    let (Expr::Dot(link, flags, _) | Expr::Index(link, flags, _)) = expression else {
        return (expression, Vec::new());
    };
    let (root, mut found) = steps(&link.lhs);
    let (mut rest, mut indexes, mut ends) = (&link.rhs, is_index(expression), ends_chain(*flags));
    loop {
        match rest {
            Expr::Dot(next, flags, _) | Expr::Index(next, flags, _) if !(indexes && ends) => {
                found.push(step(&next.lhs, indexes));
                (indexes, ends) = (is_index(rest), ends_chain(*flags));
                rest = &next.rhs;
            }
            last => {
                found.push(step(last, indexes));
                return (root, found);
            }
        }
    }
}

pub(crate) fn is_index(expression: &Expr) -> bool {
    matches!(expression, Expr::Index(..))
}

/// Then what follows an index belongs to it: `a[b.c]`, and not `a[b].c`.
pub(crate) fn ends_chain(flags: ASTFlags) -> bool {
    flags.intersects(ASTFlags::BREAK)
}

fn step(expression: &Expr, is_index: bool) -> Step<'_> {
    match expression {
        Expr::Property(named, _) if !is_index => Step::Entry(&named.2),
        Expr::StringConstant(name, _) if is_index => Step::Entry(name),
        Expr::MethodCall(call, _) if !is_index => Step::Call(call),
        other => Step::Other(other),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
