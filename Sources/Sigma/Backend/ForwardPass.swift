/// The model, in the paper's order (section 2.1; Table 1).
package struct ForwardPass {
    package let layerCount: Int
    package let backend: any Backend

    package init(layerCount: Int, backend: any Backend) {
        self.layerCount = layerCount
        self.backend = backend
    }

    /// Runs the batch through all layers and hands the back end, still inside the step, to `readOut` for logits.
    ///
    /// - Parameters:
    ///   - interlude: runs other steps between layers, where the back end can lay one aside; nil: nobody does.
    ///   - isCancelled: asked before every layer. A cancelled step leaves every sequence as it was.
    ///   - observer: sees what layers computed; nil: nobody does.
    ///   - progress: called before every layer, with its number.
    /// - Returns: false if the step was cancelled.
    package func run(
        _ batch: Batch, observer: (any LayerObserver)? = nil, interlude: (any StepInterlude)? = nil,
        isCancelled: () -> Bool,
        progress: (_ layer: Int) -> Void = { _ in },
        readOut: (any Backend) throws -> Void
    ) throws -> Bool {
        batch.routing?.removeAll()
        try backend.begin(batch)
        backend.embed()
        for layer in 0..<layerCount {
            if layer > 0, let interlude, interlude.isDue() {
                backend.suspend()
                interlude.runOthers()
                backend.resume()
            }
            if isCancelled() { return false }
            progress(layer)
            backend.attend(layer: layer)
            observer?.attended(layer: layer)
            try backend.feedForward(layer: layer)
            observer?.fedForward(layer: layer)
            batch.routing?.store(backend.layerRouting(), layer: layer)
        }
        try readOut(backend)
        try backend.end()
        return true
    }
}

/// Other steps between the layers of a long one.
package protocol StepInterlude: AnyObject {
    /// Asked between layers, and only then: whether the step should make way now.
    func isDue() -> Bool
    /// Runs other steps, each from its begin to its end.
    func runOthers()
}

/// Looks at a step's intermediate results, which the back end has until its next operation.
package protocol LayerObserver: AnyObject {
    func attended(layer: Int)
    func fedForward(layer: Int)
}
