//! Settings as part of the function that names them.
//!
//! They are known before the first question, and a literal is looked up several times as fast as an entry of a map. So
//! where a hook leaves its settings as they are, `settings.battery` becomes `30` and `ms("30m")` a number.

use rhai::{AST, Dynamic, Expr, Map, Position, Stmt};

use crate::{
    builtins::amounts,
    need::{Step, ends_chain, is_index, steps},
};

/// Puts them in place of `name.entry` in the statements of a program, in which `name` means nothing else.
pub(crate) fn put(program: &AST, statements: &mut [Stmt], name: &str, settings: &Map) {
    if !statements.iter().any(|statement| declares(statement, name)) {
        let ms_is_built_in = program.iter_fn_def().all(|own| own.name != "ms");
        let mut put = Put { name, settings, ms_is_built_in };
        statements.iter_mut().for_each(|inner| put.statement(inner));
    }
}

/// Whether a variable of that name is made.
fn declares(statement: &Stmt, name: &str) -> bool {
    let mut found = false;
    statement.walk(&mut Vec::new(), &mut |path| {
        if let Some(rhai::ASTNode::Stmt(statement)) = path.last() {
            found |= match statement {
                Stmt::Var(named, ..) => named.0.name == name,
                Stmt::For(parts, _) => {
                    parts.0.name == name || parts.1.as_ref().is_some_and(|counter| counter.name == name)
                }
                // The variable of `catch` is no part of the tree that tells its name.
                Stmt::TryCatch(..) | Stmt::Share(_) => true,
                _ => false,
            };
        }
        !found
    });
    found
}

struct Put<'a> {
    name: &'a str,
    settings: &'a Map,
    /// Whether `ms` is the one for policies, and none of the script.
    ms_is_built_in: bool,
}

impl Put<'_> {
    fn statements<'s>(&mut self, statements: impl IntoIterator<Item = &'s mut Stmt>) {
        statements.into_iter().for_each(|inner| self.statement(inner));
    }

    fn statement(&mut self, statement: &mut Stmt) {
        match statement {
            Stmt::Var(named, ..) => self.expression(&mut named.1),
            Stmt::If(flow, _) | Stmt::While(flow, _) | Stmt::Do(flow, ..) | Stmt::TryCatch(flow, _) => {
                self.expression(&mut flow.expr);
                self.statements(flow.body.statements_mut());
                self.statements(flow.branch.statements_mut());
            }
            Stmt::For(parts, _) => {
                self.expression(&mut parts.2.expr);
                self.statements(parts.2.body.statements_mut());
            }
            Stmt::Switch(parts, _) => {
                self.expression(&mut parts.0);
                for case in &mut parts.1.expressions {
                    self.expression(&mut case.lhs);
                    self.expression(&mut case.rhs);
                }
            }
            Stmt::Assignment(parts) => self.expression(&mut parts.1.rhs),
            Stmt::FnCall(call, _) => self.expressions(&mut call.args),
            Stmt::Block(block) => self.statements(block.statements_mut()),
            Stmt::Expr(value) | Stmt::BreakLoop(Some(value), ..) | Stmt::Return(Some(value), ..) => {
                self.expression(value);
            }
            _ => {}
        }
    }

    fn expressions<'e>(&mut self, expressions: impl IntoIterator<Item = &'e mut Expr>) {
        expressions.into_iter().for_each(|inner| self.expression(inner));
    }

    fn expression(&mut self, expression: &mut Expr) {
        match expression {
            Expr::Dot(..) | Expr::Index(..) => match self.setting(expression) {
                Some(literal) => *expression = literal,
                None => self.chain(expression),
            },
            Expr::FnCall(call, place) => {
                let place = *place;
                self.expressions(&mut call.args);
                if self.ms_is_built_in
                    && let ("ms", [Expr::StringConstant(written, _)]) =
                        (call.name.as_str(), call.args.as_slice())
                    && let Ok(ms) = amounts::ms(&Dynamic::from(written.clone()))
                {
                    *expression = Expr::IntegerConstant(ms, place);
                }
            }
            Expr::MethodCall(call, _) => self.expressions(&mut call.args),
            Expr::InterpolatedString(parts, _) | Expr::Array(parts, _) => self.expressions(parts.iter_mut()),
            Expr::Map(parts, _) => self.expressions(parts.0.iter_mut().map(|(_, value)| value)),
            Expr::And(parts, _) | Expr::Or(parts, _) | Expr::Coalesce(parts, _) => {
                self.expressions(parts.iter_mut());
            }
            Expr::Stmt(block) => self.statements(block.statements_mut()),
            _ => {}
        }
    }

    /// What is within the steps of a chain: arguments and indexes.
    fn chain(&mut self, expression: &mut Expr) {
        let indexes = is_index(expression);
        if let Expr::Dot(link, flags, _) | Expr::Index(link, flags, _) = expression {
            self.expression(&mut link.lhs);
            self.rest(&mut link.rhs, indexes, ends_chain(*flags));
        }
    }

    fn rest(&mut self, rest: &mut Expr, indexes: bool, ends: bool) {
        let next_indexes = is_index(rest);
        match rest {
            Expr::Dot(next, flags, _) | Expr::Index(next, flags, _) if !(indexes && ends) => {
                self.step(&mut next.lhs, indexes);
                self.rest(&mut next.rhs, next_indexes, ends_chain(*flags));
            }
            last => self.step(last, indexes),
        }
    }

    fn step(&mut self, step: &mut Expr, indexes: bool) {
        match step {
            Expr::MethodCall(call, _) if !indexes => self.expressions(&mut call.args),
            _ if indexes => self.expression(step),
            _ => {}
        }
    }

    /// The setting that an expression is the name of, where it is a single value.
    fn setting(&self, expression: &Expr) -> Option<Expr> {
        let (Expr::Variable(named, ..), steps) = steps(expression) else { return None };
        if named.1 != self.name {
            return None;
        }
        let mut value = self.settings.get(entry(steps.first()?)?)?.clone();
        for step in steps.iter().skip(1) {
            let within = value.as_map_ref().ok()?.get(entry(step)?)?.clone();
            value = within;
        }
        literal(&value, expression.position())
    }
}

fn entry<'a>(step: &Step<'a>) -> Option<&'a str> {
    match step {
        Step::Entry(name) => Some(name.as_str()),
        Step::Call(_) | Step::Other(_) => None,
    }
}

fn literal(value: &Dynamic, place: Position) -> Option<Expr> {
    if let Ok(value) = value.as_bool() {
        return Some(Expr::BoolConstant(value, place));
    }
    if let Ok(value) = value.as_int() {
        return Some(Expr::IntegerConstant(value, place));
    }
    value.clone().try_cast().map(|text| Expr::StringConstant(text, place))
}
