//! From a source to a script that can be called. What is wrong is told here, before the first question.

use rhai::{
    AST, ASTFlags, ASTNode, Caches, Dynamic, Engine, Expr, ImmutableString, Map, OptimizationLevel, Position,
    Scope, ScriptFuncDef, Stmt,
};
use trireme_core::policy::Diagnostic;

use crate::{
    HOOKS, at, builtins, engine, failure, literal,
    need::{Use, Uses},
};

/// The function that gives a script's settings and their defaults.
pub(crate) const SETTINGS: &str = "settings";
/// The function that judges the settings once they are known.
pub(crate) const CHECK: &str = "check";

/// Functions of rhai's library, as it is set up in `engine`.
#[rustfmt::skip]
const LIBRARY: [&str; 96] = [
    "abs", "all", "append", "bits", "bytes", "call", "chars", "chop", "clear", "contains", "crop", "curry", "dedup",
    "drain", "end", "ends_with", "exit", "extract", "fill_with", "filter", "find", "find_map", "Fn", "for_each",
    "get", "index_of", "insert", "is_anonymous", "is_def_fn", "is_def_var", "is_empty", "is_even", "is_exclusive",
    "is_inclusive", "is_odd", "is_shared", "is_zero", "keys", "len", "make_lower", "make_upper", "map", "max", "min",
    "mixin", "name", "order", "order_by", "order_desc", "pad", "parse_json", "pop", "push", "range", "reduce",
    "reduce_rev", "remove", "replace", "retain", "reverse", "set", "set_tag", "shift", "sign", "some", "sort",
    "sort_by", "sort_desc", "splice", "split", "split_rev", "start", "starts_with", "sub_string", "tag", "take",
    "to_binary", "to_blob", "to_chars", "to_debug", "to_hex", "to_int", "to_json", "to_lower", "to_octal",
    "to_string", "to_upper", "trim", "truncate", "type_of", "values", "zip", "allow", "wait", "deny", "this",
];

/// A script that can be called.
pub(crate) struct Script {
    pub(crate) hooks: Vec<Hook>,
    pub(crate) settings: Option<Function>,
    pub(crate) check: Option<Function>,
}

/// A hook that a script serves.
pub(crate) struct Hook {
    pub(crate) name: &'static str,
    pub(crate) function: Function,
    /// What it does with a question.
    pub(crate) question: Use,
    /// What it does with the settings.
    pub(crate) settings: Use,
}

/// A function of a script that is called from outside.
pub(crate) struct Function {
    /// Its statements, as those of a program whose functions are those of the script. rhai forgets where a function was
    /// when it ran out of steps, and not where a program was.
    program: AST,
    /// What the program takes for its variables.
    parameters: Vec<ImmutableString>,
    /// The last thing that it does: where its value is, or is missing.
    pub(crate) end: Position,
}

impl Script {
    /// Reads a source; constants become part of the functions that name them.
    pub(crate) fn read(engine: &mut Engine, source: &str) -> Result<Self, Vec<Diagnostic>> {
        if source.trim().is_empty() {
            return Err(vec![Diagnostic::nowhere(format!("the source is empty; {}", what_to_define()))]);
        }
        let one = |mistake: Diagnostic| vec![mistake];
        // First without looking whether all names are known: those of the constants are not yet.
        engine.set_strict_variables(false);
        let loose = engine.compile(source).map_err(|error| one(failure::tell_parsing(&error)))?;
        only_constants(loose.statements())?;
        let mut constants = Scope::new();
        engine.run_ast_with_scope(&mut constants, &loose).map_err(|error| one(failure::tell(*error)))?;
        engine.set_strict_variables(true).set_optimization_level(OptimizationLevel::None);
        let plain = engine
            .compile_with_scope(&constants, source)
            .map_err(|error| one(failure::tell_parsing(&error)))?;
        let mistakes = mistakes(&plain, &constants);
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        engine.set_optimization_level(OptimizationLevel::Simple);
        let ast = engine
            .compile_with_scope(&constants, source)
            .map_err(|error| one(failure::tell_parsing(&error)))?;
        if names_some(&ast.clone_functions_only(), &constants) {
            engine::supply(engine, &constants);
        }
        functions(&ast, &plain)
    }
}

impl Function {
    /// Where things are is told by the plain form: the other one leaves out what has no effect.
    fn of(definition: &ScriptFuncDef, ast: &AST, plain: &AST) -> Self {
        let stands_in = stands_in(definition, ast);
        let program = AST::new(statements(stands_in, ast), ast.shared_lib().clone());
        let last = statements(definition, plain).last().map(Stmt::position).filter(|place| !place.is_none());
        let end = last.unwrap_or_else(|| definition.body.end_position());
        Self { program, parameters: stands_in.params.to_vec(), end }
    }

    /// Makes the settings part of it, where it takes them for its second parameter.
    pub(crate) fn settle(&mut self, settings: &Map) {
        if let [_, name] = self.parameters.as_slice() {
            let mut statements = self.program.statements().to_vec();
            literal::put(&self.program, &mut statements, name, settings);
            self.program = AST::new(statements, self.program.shared_lib().clone());
        }
    }

    /// Calls it. Nothing is left of the call but in `known`: which functions of the library are meant by which calls.
    pub(crate) fn call(
        &self,
        engine: &Engine,
        known: &mut Caches,
        arguments: impl IntoIterator<Item = Map>,
    ) -> Result<Dynamic, Diagnostic> {
        let mut scope = Scope::new();
        for (name, argument) in self.parameters.iter().zip(arguments) {
            scope.push_dynamic(name.clone(), Dynamic::from_map(argument));
        }
        engine::run(engine, known, &mut scope, &self.program).map_err(|error| failure::tell(*error))
    }

    /// The same with a last argument that it does not change, and that is needed again.
    pub(crate) fn call_lent(
        &self,
        engine: &Engine,
        known: &mut Caches,
        first: Map,
        lent: &mut Map,
    ) -> Result<Dynamic, Diagnostic> {
        let [question, settings] = self.parameters.as_slice() else {
            return self.call(engine, known, [first]);
        };
        let mut scope = Scope::new();
        scope.push_dynamic(question.clone(), Dynamic::from_map(first));
        scope.push_dynamic(settings.clone(), Dynamic::from_map(core::mem::take(lent)));
        let value = engine::run(engine, known, &mut scope, &self.program);
        // Without the variables of the script, of which one may have the same name.
        scope.rewind(self.parameters.len());
        *lent = scope.remove(settings).unwrap_or_default();
        value.map_err(|error| failure::tell(*error))
    }
}

pub(crate) fn statements(function: &ScriptFuncDef, ast: &AST) -> Vec<Stmt> {
    // `clone_functions_only_filtered` would be the name for it, but leaves out nothing where there was nothing before.
    let mut alone = ast.clone_functions_only();
    alone.retain_functions(|_, _, name, count| {
        name == function.name.as_str() && count == function.params.len()
    });
    let mut statements = Vec::new();
    alone.walk(&mut |path| {
        if let [ASTNode::Stmt(statement)] = path {
            statements.push((*statement).clone());
        }
        true
    });
    statements
}

/// The function that does all of another one's work: `fn install(question, settings) { decide(question, settings) }`
/// is a longer way to `decide`.
fn stands_in<'a>(function: &'a ScriptFuncDef, ast: &'a AST) -> &'a ScriptFuncDef {
    let mut at = function;
    for _ in 0..engine::MOST_CALLS {
        let statements = statements(at, ast);
        let call = match statements.as_slice() {
            [Stmt::FnCall(call, _)] => call,
            [Stmt::Expr(value) | Stmt::Return(Some(value), ASTFlags::NONE, _)] => match &**value {
                Expr::FnCall(call, _) => call,
                _ => return at,
            },
            _ => return at,
        };
        let handed_on = call.args.iter().map(|argument| match argument {
            Expr::Variable(named, ..) => Some(&named.1),
            _ => None,
        });
        // There can be more of the same name, for different kinds of `this`.
        let next = || {
            ast.iter_fn_def().filter(|next| next.name == call.name && next.params.len() == call.args.len())
        };
        match (next().next(), next().count()) {
            (Some(next), 1)
                if next.this_type.is_none()
                    && !call.capture_parent_scope
                    && handed_on.eq(at.params.iter().map(Some)) =>
            {
                at = next;
            }
            _ => return at,
        }
    }
    // They call each other for ever.
    function
}

fn only_constants(statements: &[Stmt]) -> Result<(), Vec<Diagnostic>> {
    let wrong = statements.iter().filter_map(|statement| match statement {
        Stmt::Noop(_) => None,
        Stmt::Var(_, flags, _) if flags.intersects(ASTFlags::CONSTANT) => None,
        Stmt::Var(named, _, place) => {
            let name = &named.0.name;
            Some(at(*place, format!("a policy keeps nothing between questions: write `const {name} = …`")))
        }
        other => Some(at(
            other.position(),
            "only functions and constants may stand here: move this into a function",
        )),
    });
    let wrong: Vec<Diagnostic> = wrong.collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

/// Names that nothing has, and names that a constant has already.
fn mistakes(ast: &AST, constants: &Scope<'_>) -> Vec<Diagnostic> {
    let own: Vec<&str> = ast.iter_fn_def().map(|function| function.name.as_str()).collect();
    let mut mistakes = Vec::new();
    for function in ast.iter_fn_def() {
        for parameter in function.params.iter().filter(|name| constants.contains(name.as_str())) {
            mistakes.push(taken(parameter, function.body.start_position()));
        }
    }
    ast.walk(&mut |path| {
        let inside = path.len() > 1;
        match path.last() {
            Some(ASTNode::Stmt(Stmt::FnCall(call, place)) | ASTNode::Expr(Expr::FnCall(call, place)))
                if call.op_token.is_none() && !is_known(&call.name, &own) =>
            {
                mistakes.push(unknown(&call.name, *place));
            }
            Some(ASTNode::Expr(Expr::MethodCall(call, place))) if !is_known(&call.name, &own) => {
                mistakes.push(unknown(&call.name, *place));
            }
            Some(ASTNode::Stmt(Stmt::Var(named, flags, place)))
                if constants.contains(&named.0.name) && (inside || !flags.intersects(ASTFlags::CONSTANT)) =>
            {
                mistakes.push(taken(&named.0.name, *place));
            }
            Some(ASTNode::Stmt(Stmt::For(parts, place))) if constants.contains(&parts.0.name) => {
                mistakes.push(taken(&parts.0.name, *place));
            }
            _ => {}
        }
        true
    });
    mistakes.sort_by_key(|mistake| (mistake.line, mistake.column));
    mistakes.dedup();
    mistakes
}

/// Whether functions still name a constant.
fn names_some(functions: &AST, constants: &Scope<'_>) -> bool {
    !functions.walk(&mut |path| match path.last() {
        Some(ASTNode::Expr(Expr::Variable(named, ..))) => !constants.contains(&named.1),
        _ => true,
    })
}

fn is_known(name: &str, own: &[&str]) -> bool {
    own.contains(&name) || LIBRARY.contains(&name) || builtins::NAMES.contains(&name)
}

fn unknown(name: &str, place: Position) -> Diagnostic {
    let near = builtins::NAMES
        .iter()
        .chain(&LIBRARY)
        .find(|known| known.eq_ignore_ascii_case(name) || known.replace('_', "") == name.replace('_', ""));
    let hint = near.map(|near| format!("; there is {near}")).unwrap_or_default();
    at(place, format!("there is no function {name}{hint}"))
}

fn taken(name: &ImmutableString, place: Position) -> Diagnostic {
    at(place, format!("{name} is the name of a constant; take another one here"))
}

fn functions(ast: &AST, plain: &AST) -> Result<Script, Vec<Diagnostic>> {
    let mut script = Script { hooks: Vec::new(), settings: None, check: None };
    let uses = Uses::of(ast);
    let mut wrong = Vec::new();
    for definition in plain.iter_fn_def() {
        let (start, count) = (definition.body.start_position(), definition.params.len());
        let function = || Function::of(definition, ast, plain);
        match definition.name.as_str() {
            SETTINGS if count == 0 => script.settings = Some(function()),
            SETTINGS => wrong.push(at(start, "settings() has no parameters: it gives the defaults")),
            CHECK if count == 1 => script.check = Some(function()),
            CHECK => wrong.push(at(start, "check(settings) has one parameter")),
            name => {
                let Some(name) = HOOKS.into_iter().find(|hook| *hook == name) else { continue };
                if script.hooks.iter().any(|hook: &Hook| hook.name == name) {
                    wrong.push(at(start, format!("{name} is there twice")));
                } else if count == 1 || count == 2 {
                    // What is run is what counts: it gets its arguments themselves, and no copies.
                    let run = stands_in(definition, ast);
                    let mut uses = uses.of_function(&run.name, count).iter().cloned();
                    let mut next = || uses.next().unwrap_or(Use::NOTHING);
                    let (question, settings) = (next(), next());
                    script.hooks.push(Hook { name, function: function(), question, settings });
                } else {
                    let told = format!("{name} has the parameters (question) or (question, settings)");
                    wrong.push(at(start, told));
                }
            }
        }
    }
    if script.hooks.is_empty() && wrong.is_empty() {
        wrong.push(Diagnostic::nowhere(format!("it serves no hook; {}", what_to_define())));
    }
    script.hooks.sort_by_key(|hook| HOOKS.iter().position(|name| *name == hook.name));
    wrong.sort_by_key(|mistake| (mistake.line, mistake.column));
    if wrong.is_empty() { Ok(script) } else { Err(wrong) }
}

fn what_to_define() -> String {
    format!("define one of its hooks, such as `fn install(question) {{ allow() }}`: {}", HOOKS.join(", "))
}
