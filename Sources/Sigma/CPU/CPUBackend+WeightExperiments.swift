extension CPUBackend: WeightExperiments {
    /// Weights that are read from the disk in steps, or a head with planes of its own, would have to be replaced there too.
    package var replaceableWeights: ModelWeights? {
        memoryPlan.isResident && head.screened == nil ? context.weights : nil
    }

    package func replaceWeights(_ weights: ModelWeights) {
        precondition(replaceableWeights != nil)
        context.use(weights)
    }
}
