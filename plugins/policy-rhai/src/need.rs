//! What a function can see of its arguments.
//!
//! A script looks at a few entries of a question, and making values of the others costs more than most scripts do. Here
//! its functions are followed from their parameters: which entries they name, through variables and through calls of
//! each other. Whatever is done with a record other than naming an entry of it means all of it: it is counted, printed,
//! compared, iterated, given to something else, indexed by a name that is not known. So the answer is the same as
//! with everything, which `tests/narrowing.rs` holds.

use std::collections::{BTreeMap, BTreeSet};

use rhai::{AST, ASTFlags, Expr, FnCallExpr, ImmutableString, Stmt};

use crate::source;

/// The longest path that is followed; what is below is needed whole.
const DEEPEST: usize = 4;
/// How often the functions are gone through. Who calls each other in longer chains needs everything.
const MOST_ROUNDS: usize = 32;

/// What is needed of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Need {
    /// All of it.
    Whole,
    /// Of a record these entries; of anything else, all of it.
    Entries(BTreeMap<ImmutableString, Need>),
}

/// What functions need of their arguments, by name and number of parameters.
pub(crate) struct Needs(BTreeMap<(ImmutableString, usize), Vec<Need>>);

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

impl Needs {
    /// Of all functions of a script, in the form in which they are run.
    pub(crate) fn of(ast: &AST) -> Self {
        let functions: Vec<_> =
            ast.iter_fn_def().map(|function| (function, source::statements(function, ast))).collect();
        let nothing = functions.iter().map(|(function, _)| {
            ((function.name.clone(), function.params.len()), vec![Need::NOTHING; function.params.len()])
        });
        let mut needs = Self(nothing.collect());
        for _ in 0..MOST_ROUNDS {
            let mut changed = false;
            for (function, statements) in &functions {
                let found = Walk::function(&function.params, statements, &needs);
                let known = needs.0.entry((function.name.clone(), function.params.len())).or_default();
                changed |= *known != found;
                *known = found;
            }
            if !changed {
                return needs;
            }
        }
        for all in needs.0.values_mut() {
            all.fill(Need::Whole);
        }
        needs
    }

    /// What this function needs of its arguments.
    pub(crate) fn of_function(&self, name: &str, parameters: usize) -> &[Need] {
        self.0.get(&(name.into(), parameters)).map_or(&[], Vec::as_slice)
    }
}

/// One function, gone through.
struct Walk<'a> {
    needs: &'a Needs,
    parameters: &'a [ImmutableString],
    /// What variables can hold of the parameters: which one, and the way to it.
    variables: BTreeMap<ImmutableString, BTreeSet<(usize, Path)>>,
    found: Vec<Need>,
}

/// A step from a value into it.
enum Step<'a> {
    Entry(&'a ImmutableString),
    Call(&'a FnCallExpr),
    Other(&'a Expr),
}

impl<'a> Walk<'a> {
    fn function(parameters: &'a [ImmutableString], statements: &[Stmt], needs: &'a Needs) -> Vec<Need> {
        let variables = parameters.iter().enumerate();
        let variables = variables.map(|(at, name)| (name.clone(), BTreeSet::from([(at, Path::new())])));
        let mut walk = Self {
            needs,
            parameters,
            variables: variables.collect(),
            found: vec![Need::NOTHING; parameters.len()],
        };
        // Until no variable can hold more: a loop may use one before the line that sets it.
        for _ in 0..MOST_ROUNDS {
            let before = walk.variables.clone();
            walk.statements(statements);
            if walk.variables == before {
                walk.found.iter_mut().for_each(|need| need.cut(DEEPEST));
                return walk.found;
            }
        }
        walk.everything();
        walk.found
    }

    fn everything(&mut self) {
        self.found = vec![Need::Whole; self.parameters.len()];
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
                    found.add_at(&way, &Need::Whole);
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
                found.add_at(&way, need);
            }
        }
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
                Step::Call(call) => call.args.iter().for_each(|argument| self.whole(argument)),
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
        let needs = self.needs;
        let known = needs.of_function(&call.name, call.args.len());
        for (at, argument) in call.args.iter().enumerate() {
            self.expression(argument, known.get(at).unwrap_or(&Need::Whole));
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
fn steps(expression: &Expr) -> (&Expr, Vec<Step<'_>>) {
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

fn is_index(expression: &Expr) -> bool {
    matches!(expression, Expr::Index(..))
}

/// Then what follows an index belongs to it: `a[b.c]`, and not `a[b].c`.
fn ends_chain(flags: ASTFlags) -> bool {
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
