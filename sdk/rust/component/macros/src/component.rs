//! What is checked here is what the compiler would explain badly. Whether the types are the right ones it says itself,
//! at a line that is generated for it with the places of the author's own.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, FnArg, Generics, ImplItem, Item, ItemFn, ItemImpl, Result, ReturnType, Safety, Signature, Type};

const SIGNATURE: &str = "`fn name(events: Events<'_>, out: &mut Output<'_>) -> Result<()>`";

/// The item, with what makes a component of it behind. If it cannot be one, the item stays and the reason is behind
/// it, so that the author sees one error and not fifty.
pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let generated = match generate(arguments, item.clone()) {
        Ok(generated) => quote! {
            #generated

            // Two of these say on every target, and in words, what two exports of one name would say only when a
            // component is built.
            #[allow(dead_code, reason = "it only has a name")]
            struct ACrateHoldsOneComponent;
        },
        Err(error) => error.into_compile_error(),
    };
    quote!(#item #generated)
}

fn generate(arguments: TokenStream, item: TokenStream) -> Result<TokenStream> {
    if !arguments.is_empty() {
        return Err(Error::new_spanned(
            arguments,
            "`#[component]` takes no arguments: what a component reads and writes is said when it is deployed",
        ));
    }
    match syn::parse2(item)? {
        Item::Fn(function) => of_function(&function),
        Item::Impl(implementation) => of_implementation(&implementation),
        other => Err(Error::new(
            first_token(&other),
            format!(
                "`#[component]` stands before a function {SIGNATURE} or before `impl Transform for Type`, or another of the traits"
            ),
        )),
    }
}

fn of_function(function: &ItemFn) -> Result<TokenStream> {
    check_signature(&function.sig)?;
    let name = &function.sig.ident;
    // The types are compared here and nowhere else, so the places are those of the signature.
    let signature = function.sig.inputs.span();
    let check = quote_spanned!(signature=> const _: ::nodata_component::__private::Process = #name;);
    Ok(quote! {
        #check

        #[cfg(target_family = "wasm")]
        const _: () = {
            struct Exported;

            impl ::nodata_component::__private::Guest for Exported {
                fn process(
                    input: &::nodata_component::__private::Batch,
                    out: &::nodata_component::__private::Collector,
                ) -> ::core::result::Result<(), ::nodata_component::__private::Error> {
                    ::nodata_component::__private::export_function(#name, input, out)
                }
            }

            ::nodata_component::__private::export!(Exported with_types_in ::nodata_component::__private::bindings);
        };
    })
}

fn check_signature(signature: &Signature) -> Result<()> {
    let refuse = |span: Span, why: &str| Err(Error::new(span, format!("{why}; a component is {SIGNATURE}")));
    if let Some(token) = &signature.asyncness {
        return refuse(
            token.span(),
            "a component is not async: the host runs many at the same time, and each call of one has its events \
             already",
        );
    }
    if let Safety::Unsafe(token) = &signature.safety {
        return refuse(token.span(), "a component is not unsafe to call");
    }
    if let Some(token) = &signature.constness {
        return refuse(token.span(), "a component is not const");
    }
    if let Some(abi) = &signature.abi {
        return refuse(abi.span(), "a component has no ABI of its own: the attribute exports it");
    }
    check_generics(&signature.generics, "a component is called by the host, which chooses no types")?;
    if let Some(receiver) = signature.receiver() {
        return refuse(receiver.span(), "a component that keeps something is `impl Transform for Type`, not a method");
    }
    let typed = signature.inputs.iter().filter(|input| matches!(input, FnArg::Typed(_))).count();
    if typed != 2 {
        let span = if typed == 0 { signature.ident.span() } else { signature.inputs.span() };
        return refuse(
            span,
            &format!("a component takes two arguments, its events and its output, and this takes {typed}"),
        );
    }
    if matches!(signature.output, ReturnType::Default) {
        return refuse(signature.ident.span(), "a component returns `Result<()>`, so that it can say that it failed");
    }
    Ok(())
}

fn check_generics(generics: &Generics, why: &str) -> Result<()> {
    match generics.params.iter().find(|param| !matches!(param, syn::GenericParam::Lifetime(_))) {
        Some(param) => Err(Error::new_spanned(param, format!("a component is not generic: {why}"))),
        None => Ok(()),
    }
}

fn of_implementation(implementation: &ItemImpl) -> Result<TokenStream> {
    let Some((path, _)) = &implementation.trait_ else {
        return Err(Error::new_spanned(
            &implementation.self_ty,
            "`#[component]` stands before `impl Transform for Type`, not before the methods of the type",
        ));
    };
    let name = path.segments.last().map(|segment| segment.ident.to_string()).unwrap_or_default();
    let Some((role, _)) = ROLES.iter().find(|(_, known)| *known == name) else {
        return Err(Error::new_spanned(
            path,
            "a component implements `Transform`, `Sink`, `Source` or `Aggregate` of `nodata_component`",
        ));
    };
    if let Some(param) = implementation.generics.params.first() {
        return Err(Error::new_spanned(
            param,
            "a component is not generic, and it borrows nothing: it outlives every call",
        ));
    }
    let component = &implementation.self_ty;
    let span = component.span();
    let role_trait = Ident::new(&name, Span::call_site());
    let check = quote_spanned! {span=>
        const _: () = {
            const fn is_one<T: ::nodata_component::#role_trait>() {}
            is_one::<#component>();
        };
    };
    let exported = exported(*role);
    let ticker = has(implementation, "tick").then(|| ticker(*role, component, &role_trait));
    let grouper = (*role == Role::Aggregate && has(implementation, "group")).then(grouper);
    let snapshot = match (function(implementation, "save"), function(implementation, "restore")) {
        (None, None) => None,
        (Some(_), Some(_)) => Some(snapshot(component, &role_trait)),
        (Some(one), None) => {
            return Err(Error::new(one.span(), "what is saved must be restored: write `restore`, too"));
        }
        (None, Some(one)) => return Err(Error::new(one.span(), "what is restored must be saved: write `save`, too")),
    };
    let ports = has(implementation, "ports").then(|| ports(component, &role_trait));
    let lifecycle = lifecycle(*role, component, &role_trait, implementation);
    Ok(quote! {
        #check

        #[cfg(target_family = "wasm")]
        const _: () = {
            ::std::thread_local! {
                static INSTANCE: ::nodata_component::__private::Kept<#component> =
                    const { ::nodata_component::__private::Kept::new() };
            }

            struct Exported;

            #exported
            #lifecycle
            #ticker
            #grouper
            #snapshot
            #ports
        };
    })
}

/// Whether the author wrote this function.
fn has(implementation: &ItemImpl, name: &str) -> bool {
    function(implementation, name).is_some()
}

/// The name of this function, where the author wrote it.
fn function<'a>(implementation: &'a ItemImpl, name: &str) -> Option<&'a Ident> {
    implementation.items.iter().find_map(|item| match item {
        ImplItem::Fn(function) if function.sig.ident == name => Some(&function.sig.ident),
        _ => None,
    })
}

/// The beginning and the end of an instance. A source is opened by its role, so of it only the end is left.
fn lifecycle(role: Role, component: &Type, role_trait: &Ident, implementation: &ItemImpl) -> TokenStream {
    let open = match role {
        Role::Source if !has(implementation, "close") => return TokenStream::new(),
        Role::Source => quote!(::core::result::Result::Ok(())),
        Role::Transform | Role::Sink | Role::Aggregate => quote! {
            INSTANCE.with(|instance| {
                ::nodata_component::__private::export_make(
                    instance,
                    <#component as ::nodata_component::#role_trait>::new,
                )
            })
        },
    };
    quote! {
        impl ::nodata_component::__private::LifecycleGuest for Exported {
            fn open() -> ::core::result::Result<(), ::nodata_component::__private::Error> {
                #open
            }

            fn close() {
                INSTANCE.with(|instance| {
                    ::nodata_component::__private::export_close(
                        instance,
                        <#component as ::nodata_component::#role_trait>::close,
                    )
                })
            }
        }

        ::nodata_component::__private::export_lifecycle!(
            Exported with_types_in ::nodata_component::__private::bindings::lifecycle
        );
    }
}

/// What is called at intervals. A sink emits nothing.
fn ticker(role: Role, component: &Type, role_trait: &Ident) -> TokenStream {
    let tick = quote!(<#component as ::nodata_component::#role_trait>::tick);
    let tick = match role {
        Role::Sink => quote!(|sink, tick, _| #tick(sink, tick)),
        Role::Transform | Role::Source | Role::Aggregate => tick,
    };
    quote! {
        impl ::nodata_component::__private::TickerGuest for Exported {
            fn on_tick(
                now: i64,
                watermark: ::core::option::Option<i64>,
                out: &::nodata_component::__private::Collector,
            ) -> ::core::result::Result<(), ::nodata_component::__private::Error> {
                INSTANCE.with(|instance| {
                    ::nodata_component::__private::export_tick(
                        instance,
                        <#component as ::nodata_component::#role_trait>::new,
                        #tick,
                        (now, watermark),
                        out,
                    )
                })
            }
        }

        ::nodata_component::__private::export_ticker!(
            Exported with_types_in ::nodata_component::__private::bindings::ticker
        );
    }
}

/// Groups by something else than the key of the event. Without it, the host need not look for a group in other partitions.
fn grouper() -> TokenStream {
    quote! {
        impl ::nodata_component::__private::GrouperGuest for Exported {
            fn keys(
                input: &::nodata_component::__private::Batch,
            ) -> ::core::result::Result<
                ::nodata_component::__private::WireColumn,
                ::nodata_component::__private::Error,
            > {
                INSTANCE.with(|instance| ::nodata_component::__private::export_keys(instance, input))
            }
        }

        ::nodata_component::__private::export_grouper!(
            Exported with_types_in ::nodata_component::__private::bindings::grouper
        );
    }
}

/// What it keeps in memory.
fn snapshot(component: &Type, role_trait: &Ident) -> TokenStream {
    let of = quote!(<#component as ::nodata_component::#role_trait>);
    quote! {
        impl ::nodata_component::__private::SnapshotGuest for Exported {
            fn save() -> ::core::result::Result<::std::vec::Vec<u8>, ::nodata_component::__private::Error> {
                INSTANCE.with(|instance| {
                    ::nodata_component::__private::export_save(instance, #of::new, #of::save)
                })
            }

            fn restore(
                saved: ::std::vec::Vec<u8>,
                saved_by: ::std::string::String,
            ) -> ::core::result::Result<(), ::nodata_component::__private::Error> {
                INSTANCE.with(|instance| {
                    ::nodata_component::__private::export_restore(
                        instance,
                        #of::new,
                        #of::restore,
                        &saved,
                        &saved_by,
                    )
                })
            }
        }

        ::nodata_component::__private::export_snapshot!(
            Exported with_types_in ::nodata_component::__private::bindings::snapshot
        );
    }
}

/// What it says of its ports.
fn ports(component: &Type, role_trait: &Ident) -> TokenStream {
    quote! {
        impl ::nodata_component::__private::PortsGuest for Exported {
            fn describe() -> ::core::result::Result<
                ::std::vec::Vec<::nodata_component::__private::WirePort>,
                ::nodata_component::__private::Error,
            > {
                ::nodata_component::__private::export_described(
                    <#component as ::nodata_component::#role_trait>::ports,
                )
            }
        }

        ::nodata_component::__private::export_ports!(
            Exported with_types_in ::nodata_component::__private::bindings::ports
        );
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Role {
    Transform,
    Sink,
    Source,
    Aggregate,
}

/// The traits that make a component one.
const ROLES: [(Role, &str); 4] =
    [(Role::Transform, "Transform"), (Role::Sink, "Sink"), (Role::Source, "Source"), (Role::Aggregate, "Aggregate")];

/// What is exported, of an `INSTANCE`.
fn exported(role: Role) -> TokenStream {
    let failed = quote!(::nodata_component::__private::Error);
    match role {
        Role::Transform => quote! {
            impl ::nodata_component::__private::Guest for Exported {
                fn process(
                    input: &::nodata_component::__private::Batch,
                    out: &::nodata_component::__private::Collector,
                ) -> ::core::result::Result<(), #failed> {
                    INSTANCE.with(|instance| ::nodata_component::__private::export_transform(instance, input, out))
                }
            }

            ::nodata_component::__private::export!(Exported with_types_in ::nodata_component::__private::bindings);
        },
        Role::Sink => quote! {
            impl ::nodata_component::__private::SinkGuest for Exported {
                fn write(
                    input: &::nodata_component::__private::Batch,
                    out: &::nodata_component::__private::Collector,
                ) -> ::core::result::Result<(), #failed> {
                    INSTANCE.with(|instance| ::nodata_component::__private::export_write(instance, input, out))
                }

                fn flush() -> ::core::result::Result<(), #failed> {
                    INSTANCE.with(|instance| ::nodata_component::__private::export_flush(instance))
                }
            }

            ::nodata_component::__private::export_sink!(
                Exported with_types_in ::nodata_component::__private::bindings::sink
            );
        },
        Role::Aggregate => quote! {
            impl ::nodata_component::__private::AggregateGuest for Exported {
                fn accumulate(
                    input: &::nodata_component::__private::Batch,
                    groups: ::nodata_component::__private::WireGroups,
                    members: ::nodata_component::__private::Membership,
                    out: &::nodata_component::__private::Collector,
                ) -> ::core::result::Result<::nodata_component::__private::WireColumn, #failed> {
                    INSTANCE.with(|instance| {
                        ::nodata_component::__private::export_accumulate(instance, input, groups, members, out)
                    })
                }

                fn merge(
                    left: ::nodata_component::__private::WireColumn,
                    right: ::nodata_component::__private::WireColumn,
                ) -> ::core::result::Result<::nodata_component::__private::WireColumn, #failed> {
                    INSTANCE.with(|instance| ::nodata_component::__private::export_merge(instance, left, right))
                }

                fn finish(
                    closed: ::nodata_component::__private::WireGroups,
                    out: &::nodata_component::__private::Collector,
                ) -> ::core::result::Result<(), #failed> {
                    INSTANCE.with(|instance| ::nodata_component::__private::export_closed(instance, closed, out))
                }

                fn render(
                    groups: ::nodata_component::__private::WireGroups,
                ) -> ::core::result::Result<::nodata_component::__private::WireColumn, #failed> {
                    INSTANCE.with(|instance| ::nodata_component::__private::export_render(instance, groups))
                }
            }

            ::nodata_component::__private::export_aggregate!(
                Exported with_types_in ::nodata_component::__private::bindings::aggregate
            );
        },
        Role::Source => quote! {
            impl ::nodata_component::__private::SourceGuest for Exported {
                fn open(
                    position: ::core::option::Option<::std::vec::Vec<u8>>,
                ) -> ::core::result::Result<(), #failed> {
                    INSTANCE.with(|instance| {
                        ::nodata_component::__private::export_open(instance, position.as_deref())
                    })
                }

                fn poll(
                    events_max: u32,
                    out: &::nodata_component::__private::Collector,
                ) -> ::core::result::Result<::nodata_component::__private::Status, #failed> {
                    INSTANCE.with(|instance| ::nodata_component::__private::export_poll(instance, events_max, out))
                }

                fn committed(position: ::std::vec::Vec<u8>) -> ::core::result::Result<(), #failed> {
                    INSTANCE.with(|instance| ::nodata_component::__private::export_committed(instance, &position))
                }
            }

            ::nodata_component::__private::export_source!(
                Exported with_types_in ::nodata_component::__private::bindings::source
            );
        },
    }
}

/// Where an item begins. Its whole span would underline all of it.
fn first_token(item: &Item) -> Span {
    quote!(#item).into_iter().next().map_or_else(Span::call_site, |token| token.span())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is refused, and what the error points at.
    fn refused(item: &str) -> (String, String) {
        let error = generate(TokenStream::new(), item.parse().unwrap()).unwrap_err();
        (error.to_string(), error.span().source_text().unwrap_or_default())
    }

    fn check(item: &str, message: &str, at: &str) {
        let message = message.replace("SIGNATURE", SIGNATURE);
        assert_eq!(refused(item), (message, at.to_owned()), "{item}");
    }

    #[test]
    fn a_function_and_an_implementation_are_taken_as_they_are() {
        for item in [
            "fn f(events: Events<'_>, out: &mut Output<'_>) -> Result<()> { Ok(()) }",
            "pub fn f<'a>(events: Events<'a>, _: &mut Output<'_>) -> nodata_component::Result<()> { Ok(()) }",
            "impl Transform for Thing { fn new() -> Result<Self> { Ok(Self) } }",
            "impl nodata_component::Transform for inner::Thing {}",
        ] {
            let item: TokenStream = item.parse().unwrap();
            let expanded = expand(TokenStream::new(), item.clone()).to_string();
            assert!(expanded.starts_with(&item.to_string()), "{expanded}");
            assert!(!expanded.contains("compile_error"), "{expanded}");
        }
    }

    #[test]
    fn what_the_author_wrote_is_what_is_exported() {
        let exports = |item: &str, export: &str| {
            let expanded = expand(TokenStream::new(), item.parse().unwrap()).to_string();
            assert!(!expanded.contains("compile_error"), "{expanded}");
            expanded.contains(export)
        };
        let lifecycle = "export_lifecycle !";
        for role in ["Transform", "Sink", "Aggregate"] {
            assert!(exports(&format!("impl {role} for Thing {{}}"), lifecycle), "{role}");
        }
        assert!(!exports("impl Source for Thing { fn poll(&mut self) {} }", lifecycle));
        assert!(exports("impl Source for Thing { fn close(self) {} }", lifecycle));
        let function = "fn f(events: Events<'_>, out: &mut Output<'_>) -> Result<()> { Ok(()) }";
        assert!(!exports(function, lifecycle));
        let ticker = "export_ticker !";
        assert!(!exports("impl Transform for Thing { fn process(&mut self) {} }", ticker));
        assert!(exports("impl Sink for Thing { fn tick(&mut self, tick: Tick) -> Result<()> { Ok(()) } }", ticker));
        let grouper = "export_grouper !";
        assert!(!exports("impl Aggregate for Thing {}", grouper));
        assert!(exports("impl Aggregate for Thing { fn group(&self) {} }", grouper));
        let snapshot = "export_snapshot !";
        assert!(!exports("impl Transform for Thing {}", snapshot));
        assert!(exports("impl Aggregate for Thing { fn save(&self) {} fn restore(&mut self) {} }", snapshot));
        let ports = "export_ports !";
        assert!(!exports("impl Transform for Thing {}", ports));
        assert!(exports("impl Transform for Thing { fn ports() -> Result<Vec<PortInfo>> { todo() } }", ports));
    }

    #[test]
    fn a_refused_item_stays() {
        let expanded = expand(
            TokenStream::new(),
            quote!(
                fn f() {}
            ),
        )
        .to_string();
        assert!(expanded.starts_with("fn f () { } ") && expanded.contains("compile_error"), "{expanded}");
    }

    #[test]
    fn arguments_are_refused() {
        let error = generate(
            quote!(topic = "flights"),
            quote!(
                fn f() {}
            ),
        )
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "`#[component]` takes no arguments: what a component reads and writes is said when it is deployed"
        );
    }

    #[test]
    fn a_function_of_another_kind_is_refused() {
        let rest = "fn f(events: Events<'_>, out: &mut Output<'_>) -> Result<()> { Ok(()) }";
        check(
            &format!("async {rest}"),
            "a component is not async: the host runs many at the same time, and each call of one has its events \
             already; a component is SIGNATURE",
            "async",
        );
        check(&format!("unsafe {rest}"), "a component is not unsafe to call; a component is SIGNATURE", "unsafe");
        check(&format!("const {rest}"), "a component is not const; a component is SIGNATURE", "const");
        check(
            &format!("extern \"C\" {rest}"),
            "a component has no ABI of its own: the attribute exports it; a component is SIGNATURE",
            "extern \"C\"",
        );
        check(
            "fn f<T: Default>(events: Events<'_>, out: &mut Output<'_>) -> Result<()> { Ok(()) }",
            "a component is not generic: a component is called by the host, which chooses no types",
            "T: Default",
        );
    }

    #[test]
    fn another_signature_is_refused() {
        check(
            "fn f(&mut self, events: Events<'_>, out: &mut Output<'_>) -> Result<()> { Ok(()) }",
            "a component that keeps something is `impl Transform for Type`, not a method; a component is SIGNATURE",
            "&mut self",
        );
        check(
            "fn f() -> Result<()> { Ok(()) }",
            "a component takes two arguments, its events and its output, and this takes 0; a component is SIGNATURE",
            "f",
        );
        check(
            "fn f(event: Event<'_>) -> Result<()> { Ok(()) }",
            "a component takes two arguments, its events and its output, and this takes 1; a component is SIGNATURE",
            "event: Event<'_>",
        );
        check(
            "fn f(events: Events<'_>, out: &mut Output<'_>) {}",
            "a component returns `Result<()>`, so that it can say that it failed; a component is SIGNATURE",
            "f",
        );
    }

    #[test]
    fn another_implementation_is_refused() {
        check(
            "impl Thing { fn process(&mut self) {} }",
            "`#[component]` stands before `impl Transform for Type`, not before the methods of the type",
            "Thing",
        );
        check(
            "impl Sieve for Thing {}",
            "a component implements `Transform`, `Sink`, `Source` or `Aggregate` of `nodata_component`",
            "Sieve",
        );
        check(
            "impl<T> Transform for Thing<T> {}",
            "a component is not generic, and it borrows nothing: it outlives every call",
            "T",
        );
    }

    #[test]
    fn what_is_saved_is_restored() {
        check(
            "impl Transform for Thing { fn save(&self) -> Result<Vec<u8>> { todo() } }",
            "what is saved must be restored: write `restore`, too",
            "save",
        );
        check(
            "impl Sink for Thing { fn restore(&mut self, saved: &[u8], by: &str) -> Result<()> { todo() } }",
            "what is restored must be saved: write `save`, too",
            "restore",
        );
    }

    #[test]
    fn another_item_is_refused() {
        check(
            "struct Thing { minutes: u64 }",
            "`#[component]` stands before a function SIGNATURE or before `impl Transform for Type`, or another of the \
             traits",
            "struct",
        );
    }
}
