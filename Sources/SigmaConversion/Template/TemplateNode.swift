/// The tree of a chat template.
indirect enum TemplateNode {
    case text(String)
    case output(TemplateExpression)
    case condition([(test: TemplateExpression, body: [TemplateNode])], otherwise: [TemplateNode])
    case loop(Loop)
    case assignment(name: String, member: String?, TemplateExpression)
    case capture(name: String, [TemplateNode])
    case macro(Macro)
    case breakLoop
    case continueLoop

    struct Loop {
        let names: [String]
        let values: TemplateExpression
        let test: TemplateExpression?
        let body: [TemplateNode]
        let otherwise: [TemplateNode]
    }

    struct Macro {
        let name: String
        let parameters: [(name: String, standard: TemplateExpression?)]
        let body: [TemplateNode]
    }
}

indirect enum TemplateExpression {
    case value(TemplateValue)
    case name(String)
    case member(TemplateExpression, String)
    case item(TemplateExpression, TemplateExpression)
    case slice(TemplateExpression, TemplateExpression?, TemplateExpression?, TemplateExpression?)
    case call(TemplateExpression, Arguments)
    case filter(TemplateExpression, String, Arguments)
    case test(TemplateExpression, String, Arguments)
    case not(TemplateExpression)
    case negative(TemplateExpression)
    case binary(String, TemplateExpression, TemplateExpression)
    case conditional(TemplateExpression, then: TemplateExpression, otherwise: TemplateExpression?)
    case list([TemplateExpression])
    case map([(TemplateExpression, TemplateExpression)])

    struct Arguments {
        var values: [TemplateExpression] = []
        var named: [(name: String, value: TemplateExpression)] = []
    }
}
