// A study with Nextflow: a process per shard, and one that puts the tables together.
//
//   nextflow run utils/cluster/main.nf --input STUDY --output RESULTS --shards 16 -with-apptainer IMAGE.sif
nextflow.enable.dsl = 2

params.input = null
params.output = 'results'
params.shards = 4
params.options = ''

process SHARD {
    tag "${index}"
    cpus 4
    memory '8 GB'
    errorStrategy 'retry'
    maxRetries 2

    input:
    val index
    path input, stageAs: 'study'

    output:
    path "shard-${index}"

    script:
    // 2 and 3 say that some cases, or all of them, are not done: a result, not a failure.
    """
    oncofm batch study shard-${index} --shard ${index}/${params.shards} \\
        --workers ${task.cpus} ${params.options} || [ \$? -eq 2 ] || [ \$? -eq 3 ]
    """
}

process MERGE {
    publishDir params.output, mode: 'copy'

    input:
    path shards

    output:
    path 'merged/*'

    script:
    """
    oncofm merge ${shards} -o merged || [ \$? -eq 2 ]
    """
}

workflow {
    if (!params.input) {
        error 'Give the study: --input FOLDER'
    }
    shards = SHARD(Channel.of(0..<params.shards), file(params.input))
    MERGE(shards.collect())
}
